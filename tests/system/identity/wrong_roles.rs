//! 100,000 events of pods that start, end and reuse each other's addresses, delivered to the server late and in another
//! order: no pod gets another pod's role, with either kind of evidence from the kernel.
//!
//! The pods exist only as data ([`world`]). The test sends the requests over the real gRPC interface as an agent would,
//! and the real server answers them, behind a Kubernetes API that reports every event with a delay ([`life`],
//! [`watch`]). Each answer is judged by the pod that sent the request, not by the pod known at the address
//! ([`requests`]).

mod life;
mod report;
mod requests;
mod watch;
mod world;

use anyhow::{Context as _, Result};
use fastrand::Rng;
use kiam_tests::{
    fakes::kube_api::NamespaceObject,
    system::{System, datapath_scenario},
};
use std::{rc::Rc, time::Duration};
use tokio::task::{JoinSet, LocalSet};
use world::{Knowledge, NAMESPACES, World};

/// Number of events reported to Kubernetes, in each of the two tests.
const EVENTS: usize = 50_000;
/// Groups of two addresses each, between which pods move.
const SLOTS: u16 = 224;
/// Default seed of the random numbers.
const SEED: u64 = 20_260_101;
/// Environment variable with another seed. The machine's timing is not part of it: runs with one seed are similar, not
/// identical.
const SEED_VARIABLE: &str = "KIAM_CHURN_SEED";
/// Longest run on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// No pod gets another pod's role if the kernel reports the pod's UID.
#[test]
fn no_wrong_role_with_the_uid_from_the_kernel() {
    datapath_scenario(|system| churn(system, Knowledge::Uid));
}

/// No pod gets another pod's role if the kernel reports the age of the interface.
#[test]
fn no_wrong_role_with_the_age_of_the_interface() {
    datapath_scenario(|system| churn(system, Knowledge::InterfaceAge));
}

fn churn(system: &mut System, knowledge: Knowledge) -> Result<()> {
    for namespace in NAMESPACES {
        // The permitted roles do not matter here, and for a forbidden role the server sends no request to STS.
        system.kube.put_namespace(&NamespaceObject { name: namespace.to_owned(), permitted: None });
    }
    system.server_flags.push("--level=error".to_owned());
    system.start_server()?;
    let seed = match std::env::var(SEED_VARIABLE) {
        Ok(seed) => seed.parse().context(SEED_VARIABLE)?,
        Err(_unset) => SEED,
    };
    println!("{knowledge:?}: {SEED_VARIABLE}={seed}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let world = LocalSet::new().block_on(&runtime, async {
        let run = run(system, knowledge, Rng::with_seed(seed));
        tokio::time::timeout(PATIENCE, run).await.context("the run did not finish in time")?
    })?;
    let report = world.report();
    println!("{report}");
    report.judge(knowledge)
}

/// Runs all lives, until the events are reported and each request has its answer.
async fn run(system: &System, knowledge: Knowledge, mut rng: Rng) -> Result<Rc<World>> {
    let world = Rc::new(World::new(knowledge, system.kube.clone(), system.connect_as_agent().await?));
    let mut slots = JoinSet::new();
    for slot in 0..SLOTS {
        slots.spawn_local(life::slot(Rc::clone(&world), slot, rng.fork()));
    }
    let lives = async {
        while let Some(ended) = slots.join_next().await {
            ended??;
        }
        anyhow::Ok(())
    };
    tokio::select! {
        lived = lives => lived?,
        failed = watch::sentinel(&world) => failed?,
        () = watch::trouble(&world) => {}
    }
    Ok(world)
}
