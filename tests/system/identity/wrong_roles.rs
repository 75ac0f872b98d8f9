//! 100,000 events of pods that come, go and use one another's addresses, told to the server late and in another order:
//! nobody is told another pod's role, by whichever of the two things that a kernel can tell of the pod that asks.
//!
//! The pods exist only on paper ([`world`]): what asks is the test, over the real gRPC and as the agent would, and what
//! answers is the real server behind a Kubernetes API that learns of everything later than it happens ([`life`],
//! [`watch`]). Each question is judged by who asked it, not by who is known at the address ([`ask`]).

mod ask;
mod life;
mod report;
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

/// Of each of the two tests, events that Kubernetes is told of.
const EVENTS: usize = 50_000;
/// Groups of two addresses each, between which pods move on.
const SLOTS: u16 = 224;
/// Where the random numbers begin, unless the environment says otherwise.
const SEED: u64 = 20_260_101;
/// Names another seed. What the machine does meanwhile is no part of it: a run is like another, not the same.
const SEED_VARIABLE: &str = "KIAM_CHURN_SEED";
/// Longest run, on a machine that has much else to do.
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
        // Which roles its pods may have is not the question, and what none may have is not asked of STS.
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
        tokio::time::timeout(PATIENCE, run).await.context("the churn did not come to its end")?
    })?;
    let report = world.report();
    println!("{report}");
    report.judge(knowledge)
}

/// All lives, until the events are told and each question has its answer.
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
