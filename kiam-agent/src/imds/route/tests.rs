//! Paths with their routes, and ambiguous paths.

use super::*;

const ARN: &str = "arn:aws:iam::123456789012:role/team/role-c";

/// Returns the route of the path, with the role for credentials.
fn route(raw: &str) -> Result<String, Ambiguous> {
    let path = Path::parse(raw)?;
    Ok(match path.route() {
        Route::RoleList => "list".to_owned(),
        Route::Credentials(role) => format!("role {role}"),
        Route::Token => "token".to_owned(),
        Route::Blocked => format!("blocked {}", path.as_str()),
    })
}

/// Paths and their routes.
const PATHS: &[(&str, &str)] = &[
    ("/latest/meta-data/iam/security-credentials", "list"),
    ("/latest/meta-data/iam/security-credentials/", "list"),
    ("/1.0/meta-data/iam/security-credentials/", "list"),
    ("/2021-07-15/meta-data/iam/security-credentials", "list"),
    ("/v/meta-data/iam/security%2Dcredentials/", "list"),
    ("/latest/meta-data/iam/security-credentials/role-a", "role role-a"),
    ("/latest/meta-data/iam/security-credentials/role%2Da", "role role-a"),
    ("/latest/meta%2ddata/iam/security-credentials/role-a", "role role-a"),
    ("/latest/meta-data/iam/security-credentials/ROLE-A", "role ROLE-A"),
    ("/latest/meta-data/iam/security-credentials/team/role-c", "role team/role-c"),
    (
        "/latest/meta-data/iam/security-credentials/arn:aws:iam::123456789012:role/team/role-c",
        "role arn:aws:iam::123456789012:role/team/role-c",
    ),
    ("/latest/meta-data/iam/security-credentials/arn%3Aaws%3Aiam%3A%3A1:role/x", "role arn:aws:iam::1:role/x"),
    ("/latest/meta-data/iam/security-credentials/role-a/", "role role-a/"),
    ("/latest/meta-data/iam/security-credentials/role+a=b,c.d@e_f", "role role+a=b,c.d@e_f"),
    ("/latest/meta-data/iam/security-credentials/role%20a", "role role a"),
    ("/latest/meta-data/iam/security-credentials/..a", "role ..a"),
    ("/latest/meta-data/iam/security-credentials/a..b", "role a..b"),
    ("/latest/meta-data/iam/security-credentials/...", "role ..."),
    ("/latest/meta-data/iam/security-credentials/r;x=y", "role r;x=y"),
    ("/latest/meta-data/iam/security-credentials/r%C3%B6le", "role röle"),
    ("/latest/meta-data/iam/security-credentials/latest/api/token", "role latest/api/token"),
    ("/latest/api/token", "token"),
    ("/2021-07-15/api/token", "token"),
    ("/latest/api%2dtoken", "blocked /latest/api-token"),
    ("/latest/api/token/", "blocked /latest/api/token/"),
    ("/latest/api/tokens", "blocked /latest/api/tokens"),
    ("/latest/API/token", "blocked /latest/API/token"),
    ("/api/token", "blocked /api/token"),
    ("/a/b/api/token", "blocked /a/b/api/token"),
    ("/", "blocked /"),
    ("/latest", "blocked /latest"),
    ("/latest/", "blocked /latest/"),
    ("/latest/meta-data", "blocked /latest/meta-data"),
    ("/latest/meta-data/", "blocked /latest/meta-data/"),
    ("/latest/meta-data/iam", "blocked /latest/meta-data/iam"),
    ("/latest/meta-data/iam/", "blocked /latest/meta-data/iam/"),
    ("/latest/meta-data/iam/info", "blocked /latest/meta-data/iam/info"),
    ("/latest/meta-data/iam/security-credential", "blocked /latest/meta-data/iam/security-credential"),
    ("/latest/meta-data/iam/security-credentialsX", "blocked /latest/meta-data/iam/security-credentialsX"),
    (
        "/latest/meta-data/iam/security-credentials-extended",
        "blocked /latest/meta-data/iam/security-credentials-extended",
    ),
    (
        "/latest/meta-data/iam/security-credentials-extended/role-a",
        "blocked /latest/meta-data/iam/security-credentials-extended/role-a",
    ),
    ("/latest/meta-data/iam/Security-Credentials/", "blocked /latest/meta-data/iam/Security-Credentials/"),
    ("/latest/META-DATA/iam/security-credentials/", "blocked /latest/META-DATA/iam/security-credentials/"),
    ("/meta-data/iam/security-credentials/", "blocked /meta-data/iam/security-credentials/"),
    ("/x/y/meta-data/iam/security-credentials/r", "blocked /x/y/meta-data/iam/security-credentials/r"),
    ("/latest/meta-data;x/iam/security-credentials/", "blocked /latest/meta-data;x/iam/security-credentials/"),
    ("/latest/meta-data/iam/security-credentials;x/", "blocked /latest/meta-data/iam/security-credentials;x/"),
    (
        "/latest/meta-data/identity-credentials/ec2/security-credentials/ec2-instance",
        "blocked /latest/meta-data/identity-credentials/ec2/security-credentials/ec2-instance",
    ),
    ("/latest/user-data", "blocked /latest/user-data"),
    ("/latest/dynamic/instance-identity/document", "blocked /latest/dynamic/instance-identity/document"),
    ("/latest/meta-data/placement/region", "blocked /latest/meta-data/placement/region"),
    ("/ping", "blocked /ping"),
    ("/health", "blocked /health"),
    ("/metrics", "blocked /metrics"),
    ("/%6c%61test/user-data", "blocked /latest/user-data"),
];

#[test]
fn routes_of_paths() {
    for (raw, wanted) in PATHS {
        assert_eq!(route(raw).as_deref(), Ok(*wanted), "{raw}");
    }
}

#[test]
fn ambiguous_paths_are_refused() {
    for raw in [
        "",
        "*",
        "latest/meta-data",
        "http://169.254.169.254/latest/api/token",
        "//",
        "//latest/api/token",
        "/latest//api/token",
        "/latest/api//token",
        "/latest/meta-data/iam/security-credentials//",
        "/latest/meta-data/iam/security-credentials//role-a",
        "/latest/meta-data/iam//security-credentials/role-a",
        "/latest/meta-data/iam/security-credentials/a//b",
        "/.",
        "/..",
        "/latest/.",
        "/latest/./api/token",
        "/latest/../latest/api/token",
        "/latest/meta-data/iam/../iam/security-credentials/role-a",
        "/latest/meta-data/iam/security-credentials/..",
        "/latest/meta-data/iam/security-credentials/../../user-data",
        "/latest/meta-data/iam/security-credentials/.",
        "/latest/%2e/api/token",
        "/latest/%2e%2e/latest/api/token",
        "/latest/%2E%2e/user-data",
        "/latest/.%2e/user-data",
        "/latest%2fapi/token",
        "/latest/api%2Ftoken",
        "/latest/meta-data/iam/security-credentials%2frole-a",
        "/latest/meta-data/iam/security-credentials/team%2Frole-d",
        "/latest/%252e%252e/user-data",
        "/latest/meta-data/iam/security-credentials/role%252Da",
        "/latest/meta-data/iam/security-credentials/100%25",
        "/latest/meta-data/iam/security-credentials/role%00",
        "/latest/meta-data/iam/security-credentials/role%0a",
        "/latest/meta-data/iam/security-credentials/role%0D%0Ax: y",
        "/latest/meta-data/iam/security-credentials/role%7f",
        "/latest/meta-data/iam/security-credentials/role%c2%85",
        r"/latest\api\token",
        "/latest%5capi%5ctoken",
        r"/latest/..\user-data",
        "/latest/%",
        "/latest/%2",
        "/latest/%zz",
        "/latest/%+2",
        "/latest/api/token%",
        "/%c0%ae%c0%ae/latest",
        "/%e0%80%af/latest",
        "/%ff%fe",
        "/latest/%u002e%u002e/",
    ] {
        assert!(route(raw).is_err(), "{raw}: {:?}", route(raw));
    }
}

#[test]
fn plain_path_is_not_copied() {
    assert!(matches!(Path::parse("/latest/api/token").unwrap().0, Cow::Borrowed(_)));
    let long = format!("/latest/meta-data/iam/security-credentials/{ARN}");
    assert_eq!(Path::parse(&long).unwrap().route(), Route::Credentials(ARN));
}
