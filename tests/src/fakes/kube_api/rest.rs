//! HTTP interface: maps paths and verbs to calls of the store.

use super::{
    selector::Filter,
    store::{Kind, Store},
    view::View,
    watch::{self, Wanted},
};
use crate::fakes::http_server::{Body, Handler, answer, stream};
use bytes::Bytes;
use http::{Method, Request, Response, header};
use serde_json::{Value, json};
use std::{collections::HashMap, net::SocketAddr, sync::Arc};

#[derive(Debug)]
pub(super) struct Rest {
    store: Arc<Store>,
}

/// Object or collection that a path names.
struct Target<'a> {
    kind: Kind,
    /// `v1` or `events.k8s.io/v1`.
    group_version: &'static str,
    namespace: Option<&'a str>,
    name: Option<&'a str>,
}

impl Rest {
    pub(super) fn new(store: Arc<Store>) -> Self {
        Self { store }
    }

    fn route(&self, request: &Request<Bytes>) -> Result<Response<Body>, Failure> {
        let path = request.uri().path().trim_end_matches('/');
        match path {
            "/version" => {
                return Ok(ok(
                    &json!({"major": "1", "minor": "32", "gitVersion": "v1.32.0", "platform": "linux/amd64"}),
                ));
            }
            "/readyz" | "/livez" | "/healthz" => return Ok(answer(200, "text/plain", "ok")),
            "/control/watch/hold" | "/control/watch/release" if request.method() == Method::POST => {
                self.store.hold_back(path.ends_with("hold"));
                return Ok(answer(200, "text/plain", "ok\n"));
            }
            _ => {}
        }
        let target = target(path).ok_or(Failure::NoSuchPath)?;
        let query = query(request.uri().query().unwrap_or_default());
        match (request.method(), target.name) {
            (&Method::GET, Some(name)) if query.get("watch").is_none_or(|watch| watch != "true") => self
                .store
                .get(target.kind, target.namespace_key(), name)
                .map(|object| ok(&object))
                .ok_or(Failure::NotFound),
            (&Method::GET, _) => self.list_or_watch(&target, &query, view(request)),
            (&Method::POST, None) => self.create(&target, request.body()),
            (&Method::PATCH, Some(name)) => {
                let patch = parse(request.body())?;
                self.store
                    .patch(target.kind, target.namespace_key(), name, &patch)
                    .map(|object| ok(&object))
                    .ok_or(Failure::NotFound)
            }
            (&Method::PUT, Some(_)) => Ok(ok(&self.store.put(target.kind, parse(request.body())?))),
            (&Method::DELETE, Some(name)) => self
                .store
                .delete(target.kind, target.namespace_key(), name)
                .map(|object| ok(&object))
                .ok_or(Failure::NotFound),
            _ => Err(Failure::NotAllowed),
        }
    }

    fn list_or_watch(
        &self,
        target: &Target<'_>,
        query: &HashMap<String, String>,
        view: View,
    ) -> Result<Response<Body>, Failure> {
        // Like a server without the WatchList feature: clients fall back to list and watch.
        if query.get("sendInitialEvents").is_some_and(|value| value == "true") {
            return Err(Failure::Invalid(
                "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled",
            ));
        }
        let filter = filter(target, query)?;
        if query.get("watch").is_some_and(|watch| watch == "true" || watch == "1") {
            return self.watch(target.kind, filter, view, query);
        }
        let (version, mut items) = self.store.list(target.kind);
        items.retain(|item| filter.matches(item));
        let kind = match target.kind {
            Kind::Namespace => "NamespaceList",
            Kind::Pod => "PodList",
            Kind::Event => "EventList",
        };
        let (kind, group_version) = view.list(kind, target.group_version);
        let metadata = json!({"resourceVersion": version.to_string()});
        let items: Vec<Value> = items.iter().map(|item| view.show(item)).collect();
        Ok(ok(&json!({"kind": kind, "apiVersion": group_version, "metadata": metadata, "items": items})))
    }

    fn watch(
        &self,
        kind: Kind,
        filter: Filter,
        view: View,
        query: &HashMap<String, String>,
    ) -> Result<Response<Body>, Failure> {
        let version = query.get("resourceVersion").filter(|version| !version.is_empty() && *version != "0");
        let since = match version {
            Some(version) => {
                version.parse().map_err(|_not_a_number| Failure::Invalid("resourceVersion is not a number"))?
            }
            None => self.store.list(kind).0,
        };
        if self.store.changes_after(since, kind).is_none() {
            return Ok(answer(410, "application/json", watch::too_old().to_string()));
        }
        let bookmarks = query.get("allowWatchBookmarks").is_some_and(|value| value == "true");
        let seconds = query.get("timeoutSeconds").and_then(|seconds| seconds.parse().ok());
        let (out, response) = stream("application/json");
        tokio::spawn(watch::serve(
            Arc::clone(&self.store),
            Wanted { kind, filter, view, since, bookmarks, seconds },
            out,
        ));
        Ok(response)
    }

    fn create(&self, target: &Target<'_>, body: &Bytes) -> Result<Response<Body>, Failure> {
        let mut object = parse(body)?;
        if let Some(namespace) = target.namespace {
            object["metadata"]["namespace"] = json!(namespace);
        }
        if let Some(prefix) = object["metadata"]["generateName"].as_str() {
            object["metadata"]["name"] = json!(format!("{prefix}{}", self.store.list(target.kind).0));
        }
        let created = self.store.create(target.kind, object).ok_or(Failure::AlreadyExists)?;
        Ok(answer(201, "application/json", created.to_string()))
    }
}

impl Handler for Rest {
    fn answer(&self, _peer: SocketAddr, request: Request<Bytes>) -> Response<Body> {
        self.route(&request).unwrap_or_else(Failure::answer)
    }
}

impl Target<'_> {
    /// Returns the namespace in the key; empty for a Namespace.
    fn namespace_key(&self) -> &str {
        self.namespace.unwrap_or_default()
    }
}

/// Reason why a request is refused.
enum Failure {
    NoSuchPath,
    NotFound,
    NotAllowed,
    AlreadyExists,
    Invalid(&'static str),
    NoSuchField,
}

impl Failure {
    fn answer(self) -> Response<Body> {
        let (code, reason, message) = match self {
            Self::NoSuchPath => (404, "NotFound", "the server could not find the requested resource"),
            Self::NotFound => (404, "NotFound", "not found"),
            Self::NotAllowed => {
                (405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
            }
            Self::AlreadyExists => (409, "AlreadyExists", "already exists"),
            Self::Invalid(message) => (422, "Invalid", message),
            Self::NoSuchField => (400, "BadRequest", "field label not supported"),
        };
        let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "reason": reason, "message": message, "code": code});
        answer(code, "application/json", status.to_string())
    }
}

fn target(path: &str) -> Option<Target<'_>> {
    let (group_version, rest) = match path.strip_prefix("/api/v1/") {
        Some(rest) => ("v1", rest),
        None => ("events.k8s.io/v1", path.strip_prefix("/apis/events.k8s.io/v1/")?),
    };
    let parts: Vec<&str> = rest.split('/').collect();
    let target = |kind, namespace, name| Some(Target { kind, group_version, namespace, name });
    match parts.as_slice() {
        ["namespaces"] => target(Kind::Namespace, None, None),
        ["namespaces", name] => target(Kind::Namespace, None, Some(*name)),
        [resource] => target(kind_of(resource)?, None, None),
        ["namespaces", namespace, resource] => target(kind_of(resource)?, Some(*namespace), None),
        ["namespaces", namespace, resource, name] | ["namespaces", namespace, resource, name, "status"] => {
            target(kind_of(resource)?, Some(*namespace), Some(*name))
        }
        _ => None,
    }
}

fn kind_of(resource: &str) -> Option<Kind> {
    match resource {
        "pods" => Some(Kind::Pod),
        "events" => Some(Kind::Event),
        _ => None,
    }
}

fn filter(target: &Target<'_>, query: &HashMap<String, String>) -> Result<Filter, Failure> {
    let selector = query.get("fieldSelector").map(String::as_str).unwrap_or_default();
    Filter::parse(target.namespace, target.kind == Kind::Pod, selector).ok_or(Failure::NoSuchField)
}

fn view(request: &Request<Bytes>) -> View {
    let accept = request.headers().get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    View::accepted(accept.unwrap_or_default())
}

fn query(query: &str) -> HashMap<String, String> {
    form_urlencoded::parse(query.as_bytes()).into_owned().collect()
}

fn parse(body: &Bytes) -> Result<Value, Failure> {
    serde_json::from_slice(body).map_err(|_not_json| Failure::Invalid("the body is not JSON"))
}

fn ok(object: &Value) -> Response<Body> {
    answer(200, "application/json", object.to_string())
}
