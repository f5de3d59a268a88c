//! The server itself.

use super::{Auth, Method, Route, bytes, json, route};

pub(super) const ROUTES: &[Route] = &[
    Route {
        summary: "Show the server's version and registry, and what the token may do",
        response: json("Info"),
        ..route(Method::Get, "/api/v1/info", Auth::AnyToken, "getInfo", 200)
    },
    Route {
        summary: "This document",
        response: bytes("application/json"),
        ..route(Method::Get, "/api/v1/openapi.json", Auth::Public, "getOpenApi", 200)
    },
    Route {
        summary: "Whether the process is alive",
        response: json("Health"),
        ..route(Method::Get, "/healthz", Auth::Public, "getHealth", 200)
    },
    Route {
        summary: "Whether the server can do its work",
        response: json("Health"),
        ..route(Method::Get, "/readyz", Auth::Public, "getReadiness", 200)
    },
    Route {
        summary: "Metrics in the Prometheus text form",
        response: bytes("application/openmetrics-text"),
        ..route(Method::Get, "/metrics", Auth::Read, "getMetrics", 200)
    },
];
