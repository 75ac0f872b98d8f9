//! The shipped `deploy/manifests` on a real one-node Kubernetes: rolled out, used by real pods with unmodified clients,
//! disturbed, and removed.
//!
//! The trials share one cluster and run in order, each on the state that the earlier ones left: the first that needs
//! the manifests installs them, and the last removes them. A trial that runs alone prepares what it needs.
#![expect(
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test that cannot continue ends; its messages go to its output"
)]

mod disturbed;
mod enforced;
mod overlay;
mod processes;
mod removed;
mod rights;
mod served;
mod stage;
mod supervisor;

use anyhow::Result;
use libtest_mimic::{Arguments, Trial};
use stage::Stage;
use std::{
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
};

type Run = fn(&mut Stage) -> Result<()>;

/// All trials, in their order.
const TRIALS: [(&str, Run); 20] = [
    ("overlay::overlay_sets_only_cluster_specific_values", overlay::overlay_sets_only_cluster_specific_values),
    ("served::shipped_manifests_roll_out", served::shipped_manifests_roll_out),
    ("served::a_permitted_pod_gets_its_role", served::a_permitted_pod_gets_its_role),
    ("served::a_forbidden_pod_gets_nothing_and_an_event", served::a_forbidden_pod_gets_nothing_and_an_event),
    ("served::a_pod_without_a_role_gets_nothing", served::a_pod_without_a_role_gets_nothing),
    ("rights::rights_are_the_shipped_ones", rights::rights_are_the_shipped_ones),
    ("rights::every_other_verb_is_refused", rights::every_other_verb_is_refused),
    ("processes::processes_have_only_shipped_privileges", processes::processes_have_only_shipped_privileges),
    ("disturbed::agent_pod_is_evicted", disturbed::agent_pod_is_evicted),
    ("disturbed::the_agent_is_killed", disturbed::the_agent_is_killed),
    ("disturbed::the_agents_are_rolled", disturbed::the_agents_are_rolled),
    ("disturbed::the_servers_are_rolled", disturbed::the_servers_are_rolled),
    ("removed::nothing_is_left", removed::nothing_is_left),
    ("enforced::rolls_out_behind_a_bridge", enforced::rolls_out_behind_a_bridge),
    ("enforced::a_new_server_has_the_nodes_role", enforced::a_new_server_has_the_nodes_role),
    ("enforced::host_network_pods_have_their_own_roles", enforced::host_network_pods_have_their_own_roles),
    ("enforced::pod_without_a_role_gets_nothing", enforced::pod_without_a_role_gets_nothing),
    ("enforced::exempt_pod_has_the_nodes_role", enforced::exempt_pod_has_the_nodes_role),
    ("enforced::agent_with_a_kubeconfig_finds_exempt_pods", enforced::agent_with_a_kubeconfig_finds_exempt_pods),
    ("enforced::nothing_is_left", removed::nothing_is_left),
];

fn main() -> ExitCode {
    if supervisor::is_inner() {
        return run();
    }
    supervisor::run().unwrap_or_else(|error| {
        eprintln!("{error:#}");
        ExitCode::FAILURE
    })
}

fn run() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // One cluster, one trial at a time, and all on this thread, which the node's lifetime is tied to.
    arguments.test_threads = Some(1);
    let stage = Arc::new(Mutex::new(Stage::default()));
    let trials = TRIALS.map(|(name, run)| {
        let stage = Arc::clone(&stage);
        let trial = Trial::test(name, move || {
            // A trial that panicked is a failure, and so is the next one if it needs what that one broke.
            let mut stage = stage.lock().unwrap_or_else(PoisonError::into_inner);
            run(&mut stage).map_err(|error| {
                eprintln!("{}", stage.diagnosis());
                format!("{error:#}").into()
            })
        });
        trial.with_ignored_flag(name.starts_with("enforced::") && enforced::obstacle().is_some())
    });
    let conclusion = libtest_mimic::run(&arguments, trials.into());
    stage.lock().unwrap_or_else(PoisonError::into_inner).take_down();
    conclusion.exit_code()
}
