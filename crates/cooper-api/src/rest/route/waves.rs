//! Waves, and what they hear of.

use super::{Auth, Method, Parameter, ParameterKind, Route, bytes, json, route};

const LIST_WAVES_QUERY: &[Parameter] =
    &[Parameter { name: "top", kind: ParameterKind::Number, summary: "How many at most: 1 to 1000, 15 if absent" }];

const IMPACT_QUERY: &[Parameter] = &[Parameter {
    name: "image",
    kind: ParameterKind::Text,
    summary: "The image that would change, as REPOSITORY:TAG or REGISTRY/REPOSITORY:TAG; it must be given",
}];

pub(super) const ROUTES: &[Route] = &[
    Route {
        summary: "List waves: what changes of base images set off, the newest first",
        query: LIST_WAVES_QUERY,
        response: json("WaveList"),
        ..route(Method::Get, "/api/v1/waves", Auth::Read, "listWaves", 200)
    },
    Route {
        summary: "Show a wave with its members",
        response: json("WaveView"),
        ..route(Method::Get, "/api/v1/waves/{id}", Auth::Read, "getWave", 200)
    },
    Route {
        summary: "Let no member of a wave begin for now",
        response: json("WaveView"),
        ..route(Method::Post, "/api/v1/waves/{id}/pause", Auth::Admin, "pauseWave", 200)
    },
    Route {
        summary: "Let members of a wave begin again",
        response: json("WaveView"),
        ..route(Method::Post, "/api/v1/waves/{id}/resume", Auth::Admin, "resumeWave", 200)
    },
    Route {
        summary: "End a wave early: its runs are cancelled, and no other member begins",
        response: json("WaveView"),
        ..route(Method::Post, "/api/v1/waves/{id}/cancel", Auth::Admin, "cancelWave", 202)
    },
    Route {
        summary: "Try again what failed, was skipped or was cancelled in a wave: a new wave does that",
        response: json("WaveView"),
        ..route(Method::Post, "/api/v1/waves/{id}/retry", Auth::Admin, "retryWave", 201)
    },
    Route {
        summary: "Show where other registries tell of pushes",
        response: json("RegistryHookView"),
        ..route(Method::Get, "/api/v1/registry-hook", Auth::Admin, "getRegistryHook", 200)
    },
    Route {
        summary: "Tell of pushes to another registry, in the form of distribution, ACR, Harbor or Docker Hub: it is asked sooner",
        request: bytes("application/json"),
        ..route(Method::Post, "/hooks/registry/{id}", Auth::Public, "tellRegistryNews", 202)
    },
    Route {
        summary: "Show what a new image would rebuild, in order",
        query: IMPACT_QUERY,
        response: json("ImpactView"),
        ..route(Method::Get, "/api/v1/impact", Auth::Read, "getImpact", 200)
    },
];
