//! NAT rules that kiam and kube2iam leave behind: they are found in the tables of every tool, named with the command
//! that deletes them, and deleted by `--take-over` without a change to other rules.

use crate::support::{expect_role, run};
use anyhow::{Context as _, Result, ensure};
use kiam_tests::{
    clients::{BOTH, IMDS4, Pod, ROLES, VAIN},
    eventually::eventually,
    node::netns::Netns,
    system::{Agent, SOON, System, scenario},
};

/// Rules as kiam (`cmd/kiam/iptables.go`) and kube2iam (`iptables/iptables.go`) make them, and an equivalent for IPv6.
const V4: [&str; 3] = [
    "PREROUTING -p tcp -d 169.254.169.254 --dport 80 -j DNAT --to-destination 10.8.0.1:8181 -i cali+",
    "PREROUTING -p tcp -d 169.254.169.254 --dport 80 -j DNAT --to-destination 10.8.0.1:8181 ! -i eth0",
    "PREROUTING -p tcp -d 169.254.169.254/32 --dport 80 -j DNAT --to-destination 10.8.0.1:8181 -i docker0",
];
const V6: [&str; 1] =
    ["PREROUTING -p tcp -d fd00:ec2::254 --dport 80 -j DNAT --to-destination [fd00:8::1]:8181 -i cali+"];
/// Rules of others for the IMDS; the second has a part that its command cannot repeat.
const OTHERS_FOR_IMDS: [&str; 4] = [
    "OUTPUT -p tcp -d 169.254.169.254 --dport 80 -j REDIRECT --to-ports 8181",
    "PREROUTING -p tcp -d 169.254.0.0/16 -m comment --comment proxy -j DNAT --to-destination 10.8.0.1",
    "FOREIGN -p tcp -d 169.254.160.0/20 -j DNAT --to-destination 10.8.0.1:8181",
    "FOREIGN -d 169.254.169.254 -p tcp -j REDIRECT --to-ports 8181-8190",
];
/// Rules that do not concern the IMDS and would reveal a wrongly restored table: chains, jumps across the deleted
/// rules, falling through, counters, policies.
const NEIGHBOURS: [&str; 10] = [
    "PREROUTING -d 10.96.0.1/32 -p tcp -m tcp --dport 443 -j SERVICE",
    "SERVICE -m statistic --mode random --probability 0.5 -j ENDPOINT",
    "SERVICE -j RETURN",
    "ENDPOINT -p tcp -j DNAT --to-destination 10.9.0.1:6443",
    "POSTROUTING ! -d 10.0.0.0/8 -j MASQUERADE",
    "PREROUTING ! -d 10.0.0.0/8 -p tcp -m tcp --dport 8888 -j REDIRECT --to-ports 3128",
    "PREROUTING -d 169.254.170.2/32 -p tcp -j DNAT --to-destination 10.9.0.1",
    "OUTPUT -d 10.96.0.1/32",
    "OUTPUT -d 10.8.0.2/32 -p icmp",
    "OUTPUT -j SERVICE",
];

struct Tool {
    v4: &'static str,
    v6: &'static str,
}

const TOOLS: [Tool; 2] =
    [Tool { v4: "iptables-legacy", v6: "ip6tables-legacy" }, Tool { v4: "iptables-nft", v6: "ip6tables-nft" }];

impl Tool {
    fn append(&self, node: &Netns, rule: &str) -> Result<()> {
        let program = if rule.contains("fd00") { self.v6 } else { self.v4 };
        run(node, &format!("{program} -w -t nat -A {rule}")).map(drop)
    }

    /// Adds the neighbours' rules and chains, with those for the IMDS in between.
    fn fill(&self, node: &Netns, for_imds: &[&str]) -> Result<()> {
        for chain in ["SERVICE", "ENDPOINT", "FOREIGN"] {
            run(node, &format!("{} -w -t nat -N {chain}", self.v4))?;
        }
        for rule in NEIGHBOURS {
            self.append(node, rule)?;
            for rule in for_imds {
                self.append(node, rule)?;
            }
        }
        // Something for a counter to count.
        run(node, "ping -c 1 -W 1 10.8.0.2").map(drop)
    }

    /// Returns rules, policies and counters of both families; only the counter of ICMP, which no other process sends.
    fn save(&self, node: &Netns) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        for program in [self.v4, self.v6] {
            let text = run(node, &format!("{program}-save -c -t nat"))?;
            lines.extend(text.lines().filter(|line| !line.starts_with('#')).map(|line| match line.split_once("] ") {
                Some((_, rule)) if !rule.contains("icmp") => rule.to_owned(),
                _ => line.split(" [").next().unwrap_or(line).to_owned(),
            }));
        }
        Ok(lines)
    }

    fn without_those_for_imds(&self, node: &Netns) -> Result<Vec<String>> {
        let foreign = |line: &String| {
            let rewrites = line.contains("DNAT") || line.contains("REDIRECT");
            rewrites && (line.contains("-d 169.254.1") && !line.contains("170.2") || line.contains("-d 169.254.0.0/16"))
                || line.contains("fd00:ec2::254")
        };
        Ok(self.save(node)?.into_iter().filter(|line| !foreign(line)).collect())
    }
}

/// Starts the agent, waits for its report about the rules and returns it.
fn problem(system: &mut System) -> Result<String> {
    let agent = system.spawn_agent()?;
    eventually("the agent names the rules", SOON, || present_problem(agent).with_context(|| agent.daemon.log_tail()))
}

/// Returns the agent's present report about the rules; the other conditions name commands as well.
fn present_problem(agent: &Agent) -> Result<String> {
    let report = String::from_utf8(agent.health()?.stdout)?;
    let line = report.lines().find(|line| line.starts_with("FAIL  foreign-nat"));
    line.map(str::to_owned).with_context(|| report.clone())
}

/// Returns the commands that a report names.
fn commands(problem: &str) -> Vec<&str> {
    problem.split('`').skip(1).step_by(2).collect()
}

fn expect_named_and_deleted_by_hand(tool: &Tool) {
    scenario(|system| {
        let pod = system.add_pod(1, "reader")?;
        system.start_server()?;
        let for_imds: Vec<&str> = [V4.as_slice(), &V6, &OTHERS_FOR_IMDS].concat();
        tool.fill(&system.topology.node, &for_imds)?;
        let expected = tool.without_those_for_imds(&system.topology.node)?;
        // Each command deletes one rule, also where two are the same; the next command is still valid then.
        let report = problem(system)?;
        let commands = commands(&report);
        ensure!(commands.len() == NEIGHBOURS.len() * for_imds.len(), "{} commands: {report}", commands.len());
        for imds in BOTH {
            let reply = Pod::new(&pod).attempt(imds, ROLES, VAIN)?;
            ensure!(reply.answer().is_none_or(|answer| answer.status != 200), "served on the way: {reply:?}");
        }
        for command in commands {
            run(&system.topology.node, command)?;
        }
        let left = tool.save(&system.topology.node)?;
        ensure!(left == expected, "{left:#?}\nexpected {expected:#?}");
        system.agent()?.wait_ready()?;
        expect_role(&pod, "reader")
    });
}

fn expect_taken_over(tool: &Tool) {
    scenario(|system| {
        let pod = system.add_pod(1, "reader")?;
        system.start_server()?;
        tool.fill(&system.topology.node, &[V4.as_slice(), &V6, &OTHERS_FOR_IMDS].concat())?;
        let expected = tool.without_those_for_imds(&system.topology.node)?;
        system.agent_flags.push("--take-over".to_owned());
        system.start_agent()?;
        let left = tool.save(&system.topology.node)?;
        ensure!(left == expected, "{left:#?}\nexpected {expected:#?}");
        expect_role(&pod, "reader")?;
        // A rule that is added while the agent runs.
        tool.append(&system.topology.node, V4[0])?;
        eventually("it is deleted as well", SOON, || {
            let left = tool.save(&system.topology.node)?;
            ensure!(left == expected, "{left:#?}");
            Ok(())
        })
    });
}

/// The agent names rules of iptables-legacy and the commands that delete them.
#[test]
fn rules_of_iptables_legacy_are_named_with_remedy() {
    expect_named_and_deleted_by_hand(&TOOLS[0]);
}

/// The agent names rules of iptables-nft and the commands that delete them.
#[test]
fn rules_of_iptables_nft_are_named_with_remedy() {
    expect_named_and_deleted_by_hand(&TOOLS[1]);
}

/// The takeover deletes the rules of iptables-legacy and nothing else.
#[test]
fn takeover_deletes_only_rules_of_iptables_legacy() {
    expect_taken_over(&TOOLS[0]);
}

/// The takeover deletes the rules of iptables-nft and nothing else.
#[test]
fn takeover_deletes_only_rules_of_iptables_nft() {
    expect_taken_over(&TOOLS[1]);
}

#[test]
fn rules_of_nft_are_found_in_every_chain() {
    const RULESET: &str = "
        table inet other {
            set metadata { type ipv4_addr; elements = { 169.254.169.254, 169.254.170.2 } }
            set elsewhere { type ipv4_addr; elements = { 169.254.170.2 } }
            chain early {
                type nat hook prerouting priority -150;
                ip daddr 169.254.169.254 tcp dport 80 dnat ip to 10.8.0.1:8181
                ip6 daddr fd00:ec2::254 tcp dport 80 dnat ip6 to [fd00:8::1]:8181
                ip daddr @metadata tcp dport 80 redirect to :8181
                ip daddr { 169.254.169.254, 10.1.1.1 } tcp dport 80 redirect
                ip daddr 169.254.128.0/17 tcp dport 80 goto later
                ip daddr @elsewhere tcp dport 80 redirect to :1
                ip daddr 169.254.170.2 tcp dport 80 redirect to :2
                ip daddr 169.254.0.0/17 tcp dport 80 redirect to :3
                ip daddr != 169.254.169.254 tcp dport 80 redirect to :4
                ip daddr 169.254.169.254 counter
                tcp dport 8080 redirect to :5
            }
            chain later {
                ip daddr 169.254.160.0/20 dnat ip to 10.8.0.1
            }
            chain after {
                type nat hook postrouting priority 100;
                ip daddr 169.254.169.254 snat ip to 10.8.0.1
            }
        }";
    const FOREIGN: usize = 5;
    scenario(|system| {
        let pod = system.add_pod(1, "reader")?;
        system.start_server()?;
        let rules = system.folder().join("rules.nft");
        std::fs::write(&rules, RULESET)?;
        run(&system.topology.node, &format!("nft -f {}", rules.display()))?;
        let report = problem(system)?;
        let named = commands(&report);
        ensure!(named.len() == FOREIGN, "{report}");
        // One is deleted by hand, the others by the agent.
        run(&system.topology.node, named[0])?;
        let left = eventually("one rule less is named", SOON, || {
            let report = present_problem(system.agent()?)?;
            ensure!(commands(&report).len() == FOREIGN - 1, "{report}");
            Ok(report)
        })?;
        ensure!(!left.contains(named[0]), "{left}");
        system.agent()?.stop()?;
        system.agent_flags.push("--take-over".to_owned());
        system.start_agent()?;
        let left = run(&system.topology.node, "nft list table inet other")?;
        for kept in [":1", ":2", ":3", ":4", ":5", "counter packets", "goto later", "snat ip to"] {
            ensure!(left.contains(kept), "{kept} is gone: {left}");
        }
        ensure!(!left.contains("8181") && !left.contains("dnat ip"), "{left}");
        system.wait_for_role(&pod, IMDS4, "reader")
    });
}
