//! A plain STS: the two calls that the tests make, answered at once. It permits every role, and keeps the ARN of each
//! session.

use super::ACCOUNT;
use crate::fakes::http_server::{Body, Handler, answer};
use bytes::Bytes;
use form_urlencoded::parse;
use http::{Request, Response, header::AUTHORIZATION};
use jiff::{Timestamp, Unit};
use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// Validity of credentials: AssumeRole's default duration.
const VALIDITY: Duration = Duration::from_secs(3600);
/// XML namespace of the responses.
const XMLNS: &str = "https://sts.amazonaws.com/doc/2011-06-15/";

#[derive(Debug, Default)]
pub(super) struct Plain {
    given: AtomicU64,
    /// ARN of the session by access key id.
    sessions: Mutex<HashMap<String, String>>,
}

impl Handler for Plain {
    fn answer(&self, _peer: SocketAddr, request: Request<Bytes>) -> Response<Body> {
        let form: HashMap<_, _> = parse(request.body()).collect();
        let text = |name: &str| form.get(name).map_or("", AsRef::as_ref);
        let answered = match text("Action") {
            "AssumeRole" => self.assume_role(text("RoleArn"), text("RoleSessionName")),
            "GetCallerIdentity" => self.caller_identity(&request),
            _ => None,
        };
        match answered {
            Some(xml) => answer(200, "text/xml", xml),
            None => answer(400, "text/xml", denial()),
        }
    }
}

impl Plain {
    fn assume_role(&self, role_arn: &str, session: &str) -> Option<String> {
        let (_, role) = role_arn.split_once(":role/")?;
        let number = self.given.fetch_add(1, Ordering::Relaxed);
        let key = format!("ASIAPLAIN{number:011}");
        let arn = format!("arn:aws:sts::{ACCOUNT}:assumed-role/{role}/{session}");
        let expiration = (Timestamp::now() + VALIDITY).round(Unit::Second).ok()?;
        self.sessions.lock().expect("no panic under this lock").insert(key.clone(), arn.clone());
        Some(format!(
            "<AssumeRoleResponse xmlns=\"{XMLNS}\"><AssumeRoleResult><Credentials><AccessKeyId>{key}</AccessKeyId>\
             <SecretAccessKey>plain-secret-{number}</SecretAccessKey><SessionToken>plain-token-{number}</SessionToken>\
             <Expiration>{expiration}</Expiration></Credentials><AssumedRoleUser><Arn>{arn}</Arn>\
             <AssumedRoleId>AROAPLAIN:{session}</AssumedRoleId></AssumedRoleUser></AssumeRoleResult>\
             </AssumeRoleResponse>"
        ))
    }

    fn caller_identity(&self, request: &Request<Bytes>) -> Option<String> {
        let authorization = request.headers().get(AUTHORIZATION)?.to_str().ok()?;
        let key = authorization.split_once("Credential=")?.1.split('/').next()?;
        let sessions = self.sessions.lock().expect("no panic under this lock");
        let arn = sessions.get(key)?;
        Some(format!(
            "<GetCallerIdentityResponse xmlns=\"{XMLNS}\"><GetCallerIdentityResult><Arn>{arn}</Arn>\
             <Account>{ACCOUNT}</Account></GetCallerIdentityResult></GetCallerIdentityResponse>"
        ))
    }
}

fn denial() -> String {
    format!(
        "<ErrorResponse xmlns=\"{XMLNS}\"><Error><Type>Sender</Type><Code>InvalidClientTokenId</Code>\
         <Message>the plain STS does not support this call, or did not issue this key</Message></Error></ErrorResponse>"
    )
}
