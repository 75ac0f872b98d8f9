//! The directions that imports may take: the crates and rooms that each room may use (ARCHITECTURE.md).

/// A rule for a crate, or for a room: a module at the top of a crate, with all that is below it.
pub(super) struct Rule {
    /// Path of the room, without `.rs`; of the whole crate with `/src`.
    pub(super) room: &'static str,
    /// Imports that are refused: everything (`*`), everything of the crate (`crate`), a room of it, another crate.
    pub(super) never: &'static [&'static str],
    /// Imports that are allowed in spite of that.
    pub(super) except: &'static [&'static str],
}

pub(super) const RULES: [Rule; 25] = [
    // Shared by kernel and user space: no std, no other room.
    Rule { room: "kiam-common/src/abi", never: &["*"], except: &["crate::abi", "core", "aya", "zerocopy"] },
    Rule { room: "kiam-common/src/secret", never: &["crate"], except: &["crate::secret"] },
    Rule { room: "kiam-common/src/telemetry", never: &["crate"], except: &["crate::telemetry"] },
    Rule {
        room: "kiam-common/src/tls",
        never: &["crate"],
        except: &["crate::tls", "crate::secret", "crate::telemetry"],
    },
    Rule {
        room: "kiam-common/src/flags",
        never: &["crate"],
        except: &["crate::flags", "crate::telemetry", "crate::tls"],
    },
    Rule { room: "kiam-ebpf/src", never: &["kiam_common"], except: &["kiam_common::abi"] },
    // The server: `core` is the domain; each room around it uses `core` alone; `app` and `run` put them together.
    Rule {
        room: "kiam-server/src/core",
        never: &["*"],
        except: &["crate::core", "std", "futures", "jiff", "regex", "ring", "thiserror", "kiam_common::secret"],
    },
    Rule { room: "kiam-server/src/cache", never: &["crate"], except: &["crate::cache", "crate::core"] },
    Rule { room: "kiam-server/src/grpc", never: &["crate"], except: &["crate::grpc", "crate::core"] },
    Rule { room: "kiam-server/src/k8s", never: &["crate"], except: &["crate::k8s", "crate::core"] },
    Rule { room: "kiam-server/src/aws", never: &["crate"], except: &["crate::aws", "crate::core"] },
    Rule { room: "kiam-server/src/args", never: &["crate"], except: &["crate::args"] },
    Rule {
        room: "kiam-server/src/config",
        never: &["crate"],
        except: &["crate::config", "crate::args", "crate::core", "crate::aws", "crate::cache"],
    },
    // The agent: `datapath` has no HTTP and no RPC; `imds` uses a `source`, and `upstream` is one; `parent`, `worker`
    // and `run` put them together.
    Rule {
        room: "kiam-agent/src/datapath",
        never: &[
            "crate",
            "http",
            "http_body_util",
            "hyper",
            "hyper_util",
            "tonic",
            "tower_service",
            "kube",
            "k8s_openapi",
            "kiam_common",
        ],
        except: &[
            "crate::datapath",
            "crate::attestation",
            "crate::clock",
            "crate::config",
            "crate::files",
            "crate::report",
            "crate::sys",
            "crate::vpc_cni",
            "kiam_common::abi",
        ],
    },
    Rule {
        room: "kiam-agent/src/imds",
        never: &["crate", "tonic", "kiam_common::proto", "kiam_common::tls"],
        except: &[
            "crate::imds",
            "crate::attestation",
            "crate::clock",
            "crate::config",
            "crate::metrics",
            "crate::report",
            "crate::source",
            "crate::vpc_cni",
        ],
    },
    Rule {
        room: "kiam-agent/src/upstream",
        never: &["crate"],
        except: &[
            "crate::upstream",
            "crate::attestation",
            "crate::clock",
            "crate::config",
            "crate::metrics",
            "crate::source",
        ],
    },
    Rule { room: "kiam-agent/src/worker", never: &["crate::datapath", "crate::parent", "aya"], except: &[] },
    Rule { room: "kiam-agent/src/args", never: &["crate"], except: &["crate::args"] },
    Rule {
        room: "kiam-agent/src/config",
        never: &["crate"],
        except: &["crate::config", "crate::args", "crate::attestation"],
    },
    Rule { room: "kiam-agent/src/metrics", never: &["crate"], except: &["crate::metrics", "crate::report"] },
    Rule { room: "kiam-agent/src/report", never: &["crate"], except: &["crate::report"] },
    Rule { room: "kiam-agent/src/attestation", never: &["crate"], except: &["crate::attestation"] },
    Rule {
        room: "kiam-agent/src/status_socket",
        never: &["crate"],
        except: &["crate::status_socket", "crate::files", "crate::report"],
    },
    Rule { room: "kiam-agent/src/files", never: &["crate"], except: &["crate::files"] },
    Rule { room: "kiam-agent/src/sys", never: &["crate"], except: &["crate::sys"] },
];

/// Packages, and the packages of this repository that each may depend on. Nothing depends on tests or tasks.
pub(super) const PACKAGES: [(&str, &[&str]); 6] = [
    ("kiam-common", &[]),
    ("kiam-ebpf", &["kiam-common"]),
    ("kiam-agent", &["kiam-common"]),
    ("kiam-server", &["kiam-common"]),
    ("tests", &["kiam-common"]),
    ("xtask", &[]),
];
