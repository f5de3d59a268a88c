//! The table of routes: the server registers from it, the OpenAPI document is made from it, and tests walk it.

mod administration;
mod runs;
mod server;
mod tasks;
mod waves;
mod webhooks;

use std::fmt;

/// What every route of the API begins with.
pub const API_PREFIX: &str = "/api/v1";

/// One route of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The operation's name in the OpenAPI document, unique.
    pub operation: &'static str,
    /// The HTTP method.
    pub method: Method,
    /// The whole path, with parameters as `{id}`.
    pub path: &'static str,
    /// Who may call it.
    pub auth: Auth,
    /// What it does, in one line.
    pub summary: &'static str,
    /// The query's parameters; others are refused.
    pub query: &'static [Parameter],
    /// The body that it takes.
    pub request: Option<Content>,
    /// The status of success.
    pub status: u16,
    /// The body of success.
    pub response: Option<Content>,
}

/// A parameter in a query: always optional.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// What its values are.
    pub kind: ParameterKind,
    /// What it does, in one line.
    pub summary: &'static str,
}

/// What the values of a query's parameter are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParameterKind {
    /// A whole number from 0 on.
    Number,
    /// A text.
    Text,
    /// `true` or `false`.
    Flag,
    /// A value of the schema of this name.
    Schema(&'static str),
}

/// A body: its media type, and its schema's name where it is JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    /// The media type.
    pub media_type: &'static str,
    /// The name of its schema in the document.
    pub schema: Option<&'static str>,
}

/// An HTTP method that a route uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// GET
    Get,
    /// POST
    Post,
    /// PUT
    Put,
    /// PATCH
    Patch,
    /// DELETE
    Delete,
}

/// Who may call a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Auth {
    /// Everybody.
    Public,
    /// Everybody with a token that works, whatever its scopes.
    AnyToken,
    /// A token with the scope `read`, `run` or `admin`.
    Read,
    /// A token with the scope `run` or `admin`.
    Run,
    /// A token with the scope `admin`.
    Admin,
}

impl Method {
    /// The method's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

impl Auth {
    /// Whether a caller may call the route: `None` is a caller without a token that works.
    pub fn allows(self, scopes: Option<&cooper_types::Scopes>) -> bool {
        match (self, scopes) {
            (Self::Public, _) | (Self::AnyToken, Some(_)) => true,
            (Self::Read, Some(scopes)) => scopes.read(),
            (Self::Run, Some(scopes)) => scopes.run(),
            (Self::Admin, Some(scopes)) => scopes.admin(),
            (_, None) => false,
        }
    }

    /// The scope that is named when a token lacks it; `None` where no scope is asked for.
    pub fn scope(self) -> Option<&'static str> {
        match self {
            Self::Public | Self::AnyToken => None,
            Self::Read => Some("read"),
            Self::Run => Some("run"),
            Self::Admin => Some("admin"),
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

const fn json(schema: &'static str) -> Option<Content> {
    Some(Content { media_type: "application/json", schema: Some(schema) })
}

/// JSON that has no one form.
const fn json_any() -> Option<Content> {
    Some(Content { media_type: "application/json", schema: None })
}

const fn bytes(media_type: &'static str) -> Option<Content> {
    Some(Content { media_type, schema: None })
}

const fn route(method: Method, path: &'static str, auth: Auth, operation: &'static str, status: u16) -> Route {
    Route { operation, method, path, auth, summary: "", query: &[], request: None, status, response: None }
}

/// The routes by their subjects.
const SUBJECTS: [&[Route]; 6] =
    [runs::ROUTES, tasks::ROUTES, waves::ROUTES, webhooks::ROUTES, administration::ROUTES, server::ROUTES];

const COUNT: usize = {
    let (mut count, mut subject) = (0, 0);
    while subject < SUBJECTS.len() {
        count += SUBJECTS[subject].len();
        subject += 1;
    }
    count
};

/// Every route outside the registry and the agents' protocol.
pub const ROUTES: &[Route] = &{
    let mut all = [SUBJECTS[0][0]; COUNT];
    let (mut next, mut subject) = (0, 0);
    while subject < SUBJECTS.len() {
        let mut index = 0;
        while index < SUBJECTS[subject].len() {
            all[next] = SUBJECTS[subject][index];
            next += 1;
            index += 1;
        }
        subject += 1;
    }
    all
};

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use cooper_types::{RunId, Scope, Scopes};

    use super::*;
    use crate::rest::{
        DeletePoolQuery, DeleteSecretQuery, ImpactQuery, ListNotificationsQuery, ListRunsQuery, ListTasksQuery,
        ListTimersQuery, ListWavesQuery, ListWebhookEventsQuery, LogEventsQuery, LogQuery, Moment, ReplaceTaskQuery,
        RotateHookQuery, RunStatus, RunType,
    };

    #[test]
    fn operations_and_places_are_unique() {
        let mut seen = std::collections::HashSet::new();
        for route in ROUTES {
            assert!(seen.insert(route.operation.to_owned()), "{}", route.operation);
            assert!(seen.insert(format!("{} {}", route.method, route.path)), "{}", route.path);
            assert!(!route.summary.is_empty(), "{}", route.path);
            let outside = matches!(route.path, "/healthz" | "/readyz" | "/metrics")
                || ["/hooks/", "/runs/"].iter().any(|place| route.path.starts_with(place));
            assert!(outside || route.path.starts_with(API_PREFIX), "{}", route.path);
        }
    }

    /// The parameters of the table are the fields of the types that servers and clients use.
    #[test]
    fn queries_are_described_as_they_are() {
        let check = |operation: &str, query: serde_json::Value| {
            let route = ROUTES.iter().find(|route| route.operation == operation).expect(operation);
            let described: BTreeSet<&str> = route.query.iter().map(|parameter| parameter.name).collect();
            let fields: BTreeSet<&str> = query.as_object().expect("fields").keys().map(String::as_str).collect();
            assert_eq!(described, fields, "{operation}");
        };
        let list = ListRunsQuery {
            status: Some(RunStatus::Failed),
            task_name: Some(cooper_types::TaskName::parse("nightly").expect("valid")),
            run_type: Some(RunType::QuickBuild),
            image: Some("app:1".to_owned()),
            top: Some(1),
            before: Some(RunId::from_number(1)),
        };
        check("listRuns", serde_json::to_value(list).expect("json"));
        check("getRunLog", serde_json::to_value(LogQuery { offset: 1 }).expect("json"));
        let created = Some(Moment(cooper_types::Timestamp::from_micros(0)));
        let replace = ReplaceTaskQuery { dry_run: true, generation: Some(1), created };
        check("replaceTask", serde_json::to_value(replace).expect("json"));
        let after = Some(cooper_types::TaskName::parse("nightly").expect("valid"));
        check("listTasks", serde_json::to_value(ListTasksQuery { top: Some(1), after }).expect("json"));
        check("rotateHook", serde_json::to_value(RotateHookQuery { revoke_old: true }).expect("json"));
        check("listWaves", serde_json::to_value(ListWavesQuery { top: Some(1) }).expect("json"));
        check("getImpact", serde_json::to_value(ImpactQuery { image: "node:22".to_owned() }).expect("json"));
        check("listTimers", serde_json::to_value(ListTimersQuery { count: Some(1) }).expect("json"));
        check("deletePool", serde_json::to_value(DeletePoolQuery { force: true }).expect("json"));
        check("deleteSecret", serde_json::to_value(DeleteSecretQuery { version: Some(1) }).expect("json"));
        check("listNotifications", serde_json::to_value(ListNotificationsQuery { top: Some(1) }).expect("json"));
        check("listWebhookEvents", serde_json::to_value(ListWebhookEventsQuery { top: Some(1) }).expect("json"));
        let events = LogEventsQuery { offset: 1, status_only: true };
        check("followRunLog", serde_json::to_value(events).expect("json"));
    }

    #[test]
    fn scopes_open_what_they_say() {
        let check = |auth: Auth, scopes: Option<&str>, expect: bool| {
            let scopes = scopes.map(|text| Scopes(vec![Scope::parse(text).expect(text)]));
            assert_eq!(auth.allows(scopes.as_ref()), expect, "{auth:?} {scopes:?}");
        };
        check(Auth::Public, None, true);
        check(Auth::AnyToken, None, false);
        check(Auth::AnyToken, Some("repository:*:pull"), true);
        check(Auth::Read, Some("repository:*:pull"), false);
        check(Auth::Read, Some("run"), true);
        check(Auth::Read, Some("agent"), false);
        check(Auth::Run, Some("read"), false);
        check(Auth::Run, Some("admin"), true);
        check(Auth::Admin, Some("run"), false);
    }
}
