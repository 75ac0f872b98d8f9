//! Runs the demo from start to end: each scene acts on the stage and reports the outcome.

mod agent_killed;
mod event;
mod packet_log;
mod with_kiam;
mod without_kiam;

use super::{Args, Output, cast::Cast, play, progress::Progress, report, report::Scene, screen};
use anyhow::Result;
use std::process::ExitCode;

/// Runs as the stage: plays all scenes, then waits while the reader experiments.
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let progress = Progress::start();
    if args.output == Output::Text {
        screen::opening()?;
    }
    let mut cast = Cast::assemble(&progress)?;
    let played = play_all(&mut cast, &progress, args.output);
    // A request to end is not a failure that needs an explanation.
    if played.is_err() && !progress.is_ending() {
        screen::explain(&cast.system.logs());
    }
    let scenes = played?;
    match args.output {
        Output::Json => screen::json(&report::to_json(&scenes))?,
        Output::Text => screen::closing(&scenes)?,
    }
    if !args.once {
        screen::guide(&play::open(&mut cast)?)?;
        play::keep_up(&mut cast, &progress)?;
    }
    let (rows, holding) = report::tally(&scenes);
    Ok(if rows == holding { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn play_all(cast: &mut Cast, progress: &Progress, output: Output) -> Result<Vec<Scene>> {
    let mut scenes = Vec::new();
    let mut show = |scene: Scene| {
        if output == Output::Text {
            screen::scene(&scene)?;
        }
        scenes.push(scene);
        anyhow::Ok(())
    };
    show(without_kiam::play(cast, progress)?)?;
    let before = packet_log::count(cast)?;
    // From here on the packet log is kept, so that leaks during the agent's start count too.
    cast.system.canary.forget();
    progress.step("starting kiam-server", || cast.system.start_server())?;
    progress.step("starting kiam-agent", || cast.system.start_agent())?;
    show(with_kiam::play(cast, progress)?)?;
    show(event::play(cast, progress)?)?;
    show(agent_killed::play(cast, progress)?)?;
    show(packet_log::play(before, packet_log::count(cast)?))?;
    Ok(scenes)
}
