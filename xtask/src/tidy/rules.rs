//! The directions that imports may take (ARCHITECTURE.md): which crates and rooms a room does without.

/// A rule for a crate, or for a room: a module at the top of a crate, with all that is below it.
pub(super) struct Rule {
    /// Path of the room, without `.rs`; of the whole crate with `/src`.
    pub(super) room: &'static str,
    /// Imports that are refused: everything (`*`), everything of the crate (`crate`), a room of it, another crate.
    pub(super) never: &'static [&'static str],
    /// Imports that are allowed in spite of that.
    pub(super) except: &'static [&'static str],
}

pub(super) const RULES: [Rule; 21] = [
    // Shared layouts: no user space, no other door of the crate.
    Rule { room: "kiam-common/src/abi", never: &["*"], except: &["crate::abi", "core", "aya", "zerocopy"] },
    Rule { room: "kiam-common/src/secret", never: &["crate"], except: &["crate::secret"] },
    Rule {
        room: "kiam-common/src/tls",
        never: &["crate"],
        except: &["crate::tls", "crate::secret", "crate::telemetry"],
    },
    Rule { room: "kiam-common/src/flags", never: &["crate"], except: &["crate::flags", "crate::telemetry"] },
    Rule { room: "kiam-ebpf/src", never: &["kiam_common"], except: &["kiam_common::abi"] },
    // The server: the domain in the middle, the outside world around it, `app` and `run` wire.
    Rule {
        room: "kiam-server/src/core",
        never: &["*"],
        except: &["crate::core", "std", "futures", "jiff", "regex", "ring", "thiserror", "kiam_common::secret"],
    },
    Rule { room: "kiam-server/src/cache", never: &["crate"], except: &["crate::cache", "crate::core"] },
    Rule { room: "kiam-server/src/grpc", never: &["crate"], except: &["crate::grpc", "crate::core"] },
    Rule { room: "kiam-server/src/k8s", never: &["crate"], except: &["crate::k8s", "crate::core"] },
    Rule { room: "kiam-server/src/aws", never: &["crate"], except: &["crate::aws", "crate::core"] },
    Rule {
        room: "kiam-server/src/config",
        never: &["crate"],
        except: &["crate::config", "crate::args", "crate::core", "crate::aws", "crate::cache"],
    },
    Rule { room: "kiam-server/src/args", never: &["crate"], except: &["crate::args", "crate::config"] },
    // The agent: the datapath knows the kernel, `imds` asks a source, `upstream` is one; parent and worker wire.
    Rule {
        room: "kiam-agent/src/datapath",
        never: &[
            "crate::imds",
            "crate::upstream",
            "crate::source",
            "crate::worker",
            "crate::parent",
            "crate::run",
            "crate::metrics",
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
        except: &["kiam_common::abi"],
    },
    Rule {
        room: "kiam-agent/src/imds",
        never: &["crate::upstream", "crate::datapath", "crate::parent", "crate::worker", "tonic", "kiam_common::proto"],
        except: &[],
    },
    Rule {
        room: "kiam-agent/src/upstream",
        never: &["crate::imds", "crate::datapath", "crate::parent", "crate::worker"],
        except: &[],
    },
    Rule { room: "kiam-agent/src/worker", never: &["crate::datapath", "crate::parent", "aya"], except: &[] },
    Rule {
        room: "kiam-agent/src/metrics",
        never: &["crate::imds", "crate::upstream", "crate::datapath", "crate::parent", "crate::worker"],
        except: &[],
    },
    Rule {
        room: "kiam-agent/src/config",
        never: &["crate"],
        except: &["crate::config", "crate::args", "crate::attestation"],
    },
    Rule { room: "kiam-agent/src/args", never: &["crate"], except: &["crate::args", "crate::config"] },
    Rule { room: "kiam-agent/src/attestation", never: &["crate"], except: &["crate::attestation"] },
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
