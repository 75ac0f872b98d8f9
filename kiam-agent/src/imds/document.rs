//! The JSON documents of the credentials path, as EC2 and kiam write them: one line, keys in this order.

use crate::source::Credentials;
use bytes::Bytes;
use jiff::Timestamp;
use serde::{Serialize, Serializer};

/// A document with credentials, in kiam's order.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Success<'a> {
    code: &'static str,
    r#type: &'static str,
    access_key_id: &'a str,
    secret_access_key: &'a str,
    token: &'a str,
    #[serde(serialize_with = "seconds")]
    expiration: Timestamp,
    #[serde(serialize_with = "seconds")]
    last_updated: Timestamp,
}

/// A document without credentials, with the reason.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Failure<'a> {
    code: &'static str,
    message: &'a str,
    #[serde(serialize_with = "seconds")]
    last_updated: Timestamp,
}

/// Returns the document with these credentials. Serialisation cannot fail for these types.
pub(super) fn credentials(credentials: &Credentials) -> serde_json::Result<Bytes> {
    let Credentials { access_key_id, secret_access_key, session_token, expiration, last_updated } = credentials;
    line(&Success {
        code: "Success",
        r#type: "AWS-HMAC",
        access_key_id,
        secret_access_key: secret_access_key.expose(),
        token: session_token.expose(),
        expiration: *expiration,
        last_updated: *last_updated,
    })
}

/// Returns the document of a failure; `code` must not be `Success`.
pub(super) fn failure(code: &'static str, message: &str, now: Timestamp) -> serde_json::Result<Bytes> {
    line(&Failure { code, message, last_updated: now })
}

fn line(document: &impl Serialize) -> serde_json::Result<Bytes> {
    let mut bytes = serde_json::to_vec(document)?;
    bytes.push(b'\n');
    Ok(bytes.into())
}

/// Writes `YYYY-MM-DDTHH:MM:SSZ` in UTC, the only format that several SDKs parse.
fn seconds<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&time.strftime("%Y-%m-%dT%H:%M:%SZ"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiam_common::secret::Secret;

    #[test]
    fn documents_byte_for_byte() {
        let given = Credentials {
            access_key_id: "ASIAEXAMPLE".into(),
            secret_access_key: Secret::new("s3cr3t/+".into()),
            session_token: Secret::new("t0k3n==".into()),
            expiration: "2026-11-21T09:16:34.999Z".parse().unwrap(),
            last_updated: "2026-11-21T09:16:34+01:00".parse().unwrap(),
        };
        let wanted = concat!(
            r#"{"Code":"Success","Type":"AWS-HMAC","AccessKeyId":"ASIAEXAMPLE","SecretAccessKey":"s3cr3t/+","#,
            r#""Token":"t0k3n==","Expiration":"2026-11-21T09:16:34Z","LastUpdated":"2026-11-21T08:16:34Z"}"#,
            "\n"
        );
        assert_eq!(credentials(&given).unwrap(), wanted);
        let now = "2026-11-21T08:16:34Z".parse().unwrap();
        let wanted =
            concat!(r#"{"Code":"Failed","Message":"a \"quoted\" text","LastUpdated":"2026-11-21T08:16:34Z"}"#, "\n");
        assert_eq!(failure("Failed", r#"a "quoted" text"#, now).unwrap(), wanted);
    }
}
