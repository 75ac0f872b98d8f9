//! Certificates as users make them: with cfssl, as in kiam's own guide, and with the openssl recipe of blog posts.

use crate::support::expect_role;
use anyhow::{Context as _, Result, ensure};
use kiam_tests::{
    clients::IMDS4,
    node::process,
    system::{SOON, System, scenario},
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Requests for `cfssl gencert` from kiam's guide: a name, a key, and hosts for the server only.
const REQUESTS: [(&str, &str); 3] = [
    ("ca", r#"{"CN": "Kiam CA", "key": {"algo": "rsa", "size": 2048}}"#),
    (
        "server",
        r#"{"CN": "Kiam Server", "hosts": ["kiam-server", "127.0.0.1", "localhost"], "key": {"algo": "rsa", "size": 2048}}"#,
    ),
    ("agent", r#"{"CN": "Kiam Agent", "key": {"algo": "rsa", "size": 2048}}"#),
];

/// Makes certificates and keys of the three, in files with their names.
fn make_with_cfssl(folder: &Path) -> Result<()> {
    for (name, request) in REQUESTS {
        let input = folder.join(format!("{name}.json"));
        fs::write(&input, request)?;
        let mut cfssl = Command::new("cfssl");
        cfssl.arg("gencert").current_dir(folder);
        match name {
            "ca" => cfssl.arg("-initca"),
            _ => cfssl.args(["-ca", "ca.pem", "-ca-key", "ca-key.pem"]),
        };
        let made: serde_json::Value = serde_json::from_str(&process::run(cfssl.arg(&input))?)?;
        for (field, file) in [("cert", format!("{name}.pem")), ("key", format!("{name}-key.pem"))] {
            let pem = made[field].as_str().with_context(|| format!("cfssl gave no {field}: {made}"))?;
            fs::write(folder.join(file), pem)?;
        }
    }
    // The worker runs as another user.
    process::run(Command::new("chmod").arg("0444").arg(folder.join("agent-key.pem"))).map(drop)
}

/// Returns the flags for the TLS files of one end.
fn flags(folder: &Path, name: &str) -> Vec<String> {
    let file = |name: String| folder.join(name).display().to_string();
    vec![
        format!("--ca={}", file("ca.pem".to_owned())),
        format!("--cert={}", file(format!("{name}.pem"))),
        format!("--key={}", file(format!("{name}-key.pem"))),
    ]
}

fn folder(system: &System, name: &str) -> Result<PathBuf> {
    let folder = system.folder().join(name);
    fs::create_dir(&folder)?;
    Ok(folder)
}

#[test]
fn cfssl_certificates_are_accepted_by_both_ends() {
    scenario(|system| {
        let folder = folder(system, "cfssl")?;
        make_with_cfssl(&folder)?;
        system.server_flags.extend(flags(&folder, "server"));
        system.agent_flags.extend(flags(&folder, "agent"));
        let pod = system.add_pod(1, "reader")?;
        system.start_server()?;
        system.start_agent()?;
        system.wait_for_role(&pod, IMDS4, "reader")?;
        expect_role(&pod, "reader")
    });
}

/// The recipe: a request, signed without extensions.
const BLOG: &str = "
    openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=ca -keyout ca-key.pem -out ca.pem
    openssl req -newkey rsa:2048 -nodes -subj /CN=kiam-server -keyout server-key.pem -out server.csr
    openssl x509 -req -in server.csr -CA ca.pem -CAkey ca-key.pem -CAcreateserial -days 30 -out server.pem
";

#[test]
fn certificates_of_the_openssl_recipe_are_refused() {
    scenario(|system| {
        let folder = folder(system, "openssl")?;
        process::run(Command::new("sh").args(["-e", "-c", BLOG]).current_dir(&folder))?;
        system.server_flags.extend(flags(&folder, "server"));
        let server = system.spawn_server()?;
        let status = server.daemon.wait(SOON)?;
        let log = server.daemon.log();
        ensure!(!status.success(), "{status}\n{log}");
        for word in ["server.pem", "openssl"] {
            ensure!(log.contains(word), "no {word} in\n{log}");
        }
        Ok(())
    });
}
