//! The reachability probe through the datapath: answered on a node that serves; lost where the packet filter drops what
//! the fence makes local, and then reported with the suspected rules and the commands that let pods in.

use crate::support::{expect_nothing, expect_role, run, serving, sockets_in};
use anyhow::{Context as _, Result, ensure};
use kiam_tests::{
    clients::IMDS4,
    eventually::{eventually, throughout},
    node::netns::Netns,
    system::{Footprint, SOON, System, scenario},
};
use std::time::Duration;

const INTERFACE: &str = "kiam-probe0";

/// Returns whether the last probe of a family was answered, from the metrics.
fn answered(system: &System, family: &str) -> Result<bool> {
    let agent = system.agent.as_ref().context("an agent")?;
    let metrics = agent.admin(&system.topology.node, "/metrics")?;
    let start = format!("kiam_agent_probe_answered{{family=\"{family}\"}} ");
    let value = metrics.text().lines().find_map(|line| line.strip_prefix(&start).map(str::to_owned));
    Ok(value.with_context(|| format!("no {start}in\n{}", metrics.text()))? == "1")
}

fn expect_answered(system: &System) -> Result<()> {
    for family in ["IPv4", "IPv6"] {
        eventually(&format!("a {family} probe is answered"), SOON, || {
            ensure!(answered(system, family)?, "not yet");
            Ok(())
        })?;
    }
    Ok(())
}

/// Waits for the agent's report about lost probes and returns it.
fn problem(system: &mut System) -> Result<String> {
    let agent = system.agent()?;
    eventually("the agent reports a lost probe", SOON, || {
        let report = String::from_utf8(agent.health()?.stdout)?;
        let line = report.lines().find(|line| line.starts_with("FAIL  probe"));
        line.map(str::to_owned).context(report)
    })
}

/// Returns the suspects that the report names, without the commands that show them, and the commands that let pods in.
fn suspects(problem: &str) -> Result<(Vec<String>, Vec<String>)> {
    let (suspects, remedies) = problem.split_once(". To let them in: ").context(problem.to_owned())?;
    let (_, suspects) = suspects.split_once("what may drop them is ").context(problem.to_owned())?;
    let name = |text: &str| text.split([',', '(']).next().unwrap_or(text).trim().to_owned();
    let commands = remedies.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    Ok((suspects.split("; ").map(name).collect(), commands))
}

/// Asserts that with these rules pods get no answer, the agent names exactly the rules that may be the cause, and pods
/// are served after the commands that it gives.
fn expect_named(set_up: impl FnOnce(&System) -> Result<()>, expected: &[&str]) {
    scenario(|system| {
        let pod = serving(system, &[])?;
        set_up(system)?;
        let report = problem(system)?;
        let (named, remedies) = suspects(&report)?;
        ensure!(named == expected, "{named:#?}\nexpected {expected:#?}\n{report}");
        expect_nothing(system, &pod)?;
        for remedy in &remedies {
            run(&system.topology.node, remedy)?;
        }
        system.agent()?.wait_ready()?;
        expect_answered(system)?;
        expect_role(&pod, "reader")
    });
}

/// Installs a firewall with iptables: it accepts what the node itself needs, and otherwise only expected packets. Rules
/// for other packets come first, so that naming the first rules is not enough.
fn iptables(node: &Netns, suffix: &str) -> Result<()> {
    for program in ["iptables", "ip6tables"] {
        let program = format!("{program}-{suffix}");
        for line in [
            "-A INPUT -i lo -j ACCEPT",
            "-A INPUT -i eth0 -j ACCEPT",
            "-A INPUT -p udp -j DROP",
            "-A INPUT -p tcp -m tcp --dport 22 -j DROP",
            "-A INPUT -p tcp -m tcp ! --dport 80 -j DROP",
            "-A INPUT -i cali7 -j DROP",
            "-A INPUT ! -i kiam+ -p icmp -j DROP",
            "-N OTHERS",
            "-A OTHERS -j DROP",
            "-N HTTP",
            "-A HTTP -p tcp -j REJECT",
            "-A INPUT -p tcp -m tcp --dport 80 -j HTTP",
            "-P INPUT DROP",
            "-t mangle -A PREROUTING -i kiam-probe+ -j DROP",
        ] {
            run(node, &format!("{program} -w {line}"))?;
        }
    }
    run(node, &format!("iptables-{suffix} -w -A INPUT -d 10.0.0.0/8 -j DROP"))?;
    run(node, &format!("ip6tables-{suffix} -w -A INPUT -d fd00:8::/32 -j DROP")).map(drop)
}

/// The agent names rules of iptables-legacy that drop its probe, and the commands that let pods in.
#[test]
fn rules_of_iptables_legacy_are_suspects() {
    expect_named(
        |system| iptables(&system.topology.node, "legacy"),
        &[
            "rule 1 of mangle PREROUTING of iptables-legacy",
            "rule 1 of filter HTTP of iptables-legacy",
            "the policy of filter INPUT of iptables-legacy",
            "rule 1 of mangle PREROUTING of ip6tables-legacy",
            "rule 1 of filter HTTP of ip6tables-legacy",
            "the policy of filter INPUT of ip6tables-legacy",
        ],
    );
}

/// The agent names rules of iptables-nft that drop its probe, and the commands that let pods in.
#[test]
fn rules_of_iptables_nft_are_suspects() {
    expect_named(
        |system| iptables(&system.topology.node, "nft"),
        &[
            "rule 1 of ip filter HTTP of nftables",
            "the policy of ip filter INPUT of nftables",
            "rule 1 of ip mangle PREROUTING of nftables",
            "rule 1 of ip6 filter HTTP of nftables",
            "the policy of ip6 filter INPUT of nftables",
            "rule 1 of ip6 mangle PREROUTING of nftables",
        ],
    );
}

/// The agent names nftables rules that drop its probe, and the commands that let pods in.
#[test]
fn rules_of_nft_are_suspects() {
    const RULESET: &str = r#"
        table inet firewall {
            chain early {
                type filter hook prerouting priority -300;
                ip daddr 169.254.0.0/16 drop
                ip daddr 10.0.0.0/8 drop
                ip6 daddr != fd00:ec2::254 ip6 daddr fd00:9::/32 drop
            }
            chain input {
                type filter hook input priority 0; policy drop;
                iifname { "lo", "eth0" } accept
                iifname "cali7*" drop
                iifname "kiam-probe*" counter
                meta l4proto udp drop
                tcp dport 22 reject
                tcp dport 8080 jump others
                tcp dport 80 goto http
            }
            chain http {
                ip6 nexthdr tcp reject with tcp reset
            }
            chain others {
                drop
            }
        }
        table inet late {
            chain input { type filter hook input priority 10; policy accept; }
        }"#;
    let load = |system: &System| {
        let rules = system.folder().join("rules.nft");
        std::fs::write(&rules, RULESET)?;
        run(&system.topology.node, &format!("nft -f {}", rules.display())).map(drop)
    };
    expect_named(
        load,
        &[
            "rule 1 of inet firewall early of nftables",
            "rule 1 of inet firewall http of nftables",
            "the policy of inet firewall input of nftables",
        ],
    );
}

/// The probe leaves no connection behind, and its device does not count as an interface of pods.
#[test]
fn leaves_no_connection_and_no_pod_interface() {
    for flags in [&[] as &[&str], &["--tc=clsact"], &["--host-interface=!eth0"]] {
        scenario(|system| {
            system.binaries = system.binaries.with_shipped_capabilities(&system.folder())?;
            let pod = serving(system, flags)?;
            expect_answered(system)?;
            expect_role(&pod, "reader")?;
            for state in ["syn-recv", "established"] {
                let half_open = sockets_in(&system.topology.node, state)?;
                ensure!(half_open == 0, "{half_open} connections in {state}");
            }
            let agent = system.agent.as_ref().context("an agent")?;
            let metrics = agent.admin(&system.topology.node, "/metrics")?;
            ensure!(!metrics.text().contains("kiam-probe"), "{}", metrics.text());
            Ok(())
        });
    }
}

#[test]
fn removed_parts_of_its_path_are_restored() {
    scenario(|system| {
        let _pod = serving(system, &[])?;
        let node = &system.topology.node;
        run(node, "nft add table inet seen")?;
        run(node, "nft add chain inet seen input { type filter hook input priority 0 ; }")?;
        for header in ["ip", "ip6"] {
            run(
                node,
                &format!(
                    "nft add rule inet seen input iifname {INTERFACE} tcp dport 80 meta protocol {header} counter"
                ),
            )?;
        }
        node.ip(&format!("link del {INTERFACE}"))?;
        expect_next_answered(system)?;
        expect_there_once(system)?;
        for part in ["-4 route del 192.0.0.8/32", "-6 route del 100:0:0:1::1/128", "-6 neigh flush nud permanent"] {
            system.topology.node.ip(&format!("{part} dev {INTERFACE}"))?;
        }
        expect_next_answered(system)?;
        system.topology.node.ip(&format!("link set dev {INTERFACE} down"))?;
        expect_next_answered(system)
    });
}

/// Waits for the next probe of each family, and asserts that none is reported as lost.
fn expect_next_answered(system: &mut System) -> Result<()> {
    let arrived = |system: &System| -> Result<Vec<u64>> {
        let rules = run(&system.topology.node, "nft list chain inet seen input")?;
        let counts = rules.split("counter packets ").skip(1).map(|rest| rest.split(' ').next().unwrap_or_default());
        Ok(counts.map(str::parse).collect::<Result<_, _>>()?)
    };
    let before = arrived(system)?;
    eventually("another probe arrives", SOON, || {
        let now = arrived(system)?;
        ensure!(now.len() == 2 && now.iter().zip(&before).all(|(now, before)| now > before), "{now:?}, {before:?}");
        Ok(())
    })?;
    // The next reading of the counters includes the result.
    expect_answered(system)?;
    throughout("the agent is ready", Duration::from_secs(6), || {
        ensure!(answered(system, "IPv4")? && answered(system, "IPv6")?, "lost");
        Ok(())
    })
}

fn expect_there_once(system: &System) -> Result<()> {
    eventually("its interface exists", SOON, || {
        let links = system.topology.node.ip("-o link show type veth")?;
        let found = links.matches(": kiam-probe").count();
        ensure!(found == 2, "{found}, not one pair: {links}");
        Ok(())
    })
}

/// In an upgrade the probe reaches the new agent; a cleanup removes its device.
#[test]
fn probe_device_across_upgrade_and_cleanup() {
    for flags in [&[] as &[&str], &["--tc=clsact"]] {
        scenario(|system| {
            let pod = system.add_pod(1, "reader")?;
            let before = Footprint::take(&system.topology.node, &system.bpffs())?;
            system.agent_flags.extend(flags.iter().map(|&flag| flag.to_owned()));
            system.start()?;
            expect_answered(system)?;
            let old = system.start_successor()?;
            expect_answered(system)?;
            expect_there_once(system)?;
            ensure!(old.health()?.status.success(), "the old one is not healthy in standby");
            // The old agent serves again, and the probe reaches it.
            system.agent()?.kill_both()?;
            drop(system.agent.replace(old));
            system.agent()?.wait_ready()?;
            expect_answered(system)?;
            expect_there_once(system)?;
            system.wait_for_role(&pod, IMDS4, "reader")?;
            system.agent()?.stop()?;
            system.clean_up()?;
            let after = Footprint::take(&system.topology.node, &system.bpffs())?;
            ensure!(after == before, "left over:\n{after:#?}\nbefore:\n{before:#?}");
            Ok(())
        });
    }
}
