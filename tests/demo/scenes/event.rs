//! What the owner of the forbidden pod sees: an Event.

use super::super::{
    cast::Cast,
    progress::Progress,
    report::{Row, Scene},
};
use anyhow::{Context as _, Result};
use kiam_tests::{eventually::eventually, system::SOON};
use serde_json::Value;

/// Expected reason of the Event.
const REASON: &str = "KiamRoleForbidden";

pub(super) fn play(cast: &Cast, progress: &Progress) -> Result<Scene> {
    let name = cast.forbidden.name;
    let event = progress.step("waiting for the Event", || {
        // The table reports its absence.
        Ok(eventually("there is an Event on the pod", SOON, || {
            let events = cast.system.kube.events();
            events.into_iter().find(|event| is_about(event, name)).context("there is none")
        })
        .unwrap_or_default())
    })?;
    let text = |field: &str| event.get(field).and_then(Value::as_str).unwrap_or_default();
    // The two API groups of Events use different fields.
    let message = [text("message"), text("note")].concat();
    let reason = if event.is_null() { "no Event" } else { text("reason") };
    Ok(Scene {
        title: "Why: an Event on the pod",
        headings: ["pod", "request"],
        text: format!(
            "kiam-server puts an Event on the pod, where `kubectl describe pod` shows it. Its message:\n«{message}»"
        ),
        rows: vec![Row::exactly(name, "Events of the pod", REASON, reason.to_owned())],
    })
}

fn is_about(event: &Value, pod: &str) -> bool {
    ["involvedObject", "regarding"].iter().any(|field| event.get(field).is_some_and(|object| object["name"] == pod))
}
