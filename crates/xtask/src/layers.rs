//! The direction of dependencies: ARCHITECTURE.md's layers, checked over the real graph.

use std::collections::BTreeSet;

use anyhow::bail;

use crate::graph::{Graph, Use};
use crate::workspace::Workspace;

/// The layers, lowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Layer {
    /// Decides: no IO, no clock, no runtime.
    Domain,
    /// The traits and wire types between the parts.
    Contract,
    /// The outside world behind those traits.
    Adapter,
    /// What serves; it talks to adapters through contracts.
    Service,
    /// A service that also constructs the adapters and services it runs.
    Wiring,
    /// The product's binary.
    Binary,
    /// What works on the product from outside, and is part of nothing.
    Tool,
}

/// Every member has its layer here: a new crate takes a decision, not a default.
const LAYERS: &[(&str, Layer)] = &[
    ("cooper-types", Layer::Domain),
    ("cooper-spec", Layer::Domain),
    ("cooper-engine", Layer::Domain),
    ("cooper-ports", Layer::Contract),
    ("cooper-api", Layer::Contract),
    ("cooper-store", Layer::Adapter),
    ("cooper-blobs", Layer::Adapter),
    ("cooper-source", Layer::Adapter),
    ("cooper-docker", Layer::Adapter),
    ("cooper-forge", Layer::Adapter),
    ("cooper-registry", Layer::Service),
    ("cooper-client", Layer::Service),
    ("cooper-agent", Layer::Wiring),
    ("cooper-server", Layer::Wiring),
    ("cooper", Layer::Binary),
    ("cooper-e2e", Layer::Tool),
    ("xtask", Layer::Tool),
];

/// What the domain may not reach, directly or through others.
const OUTSIDE: &[&str] = &["tokio", "sqlx", "axum", "hyper", "tonic", "reqwest", "bollard", "git2"];

impl Layer {
    fn of(member: &str) -> Option<Self> {
        LAYERS.iter().find(|(name, _)| *name == member).map(|(_, layer)| *layer)
    }

    /// Whether what is built in this layer may use a crate of the other one.
    fn may_use(self, other: Self) -> bool {
        match self {
            Self::Domain => other == Self::Domain,
            Self::Contract | Self::Adapter | Self::Service => other <= Self::Contract && other < self,
            // Wiring starts its neighbours: the server runs an agent in its own process.
            Self::Wiring => other <= Self::Wiring,
            Self::Binary => other < Self::Binary,
            Self::Tool => false,
        }
    }
}

/// Checks the workspace's graph.
pub(crate) fn check(workspace: &Workspace) -> anyhow::Result<()> {
    let faults = faults(&Graph::from_metadata(&workspace.metadata()?));
    if !faults.is_empty() {
        bail!("the dependencies break the layers of ARCHITECTURE.md:\n  {}", faults.join("\n  "));
    }
    Ok(())
}

/// Every breach of the rules, as a line each.
fn faults(graph: &Graph) -> Vec<String> {
    let mut faults = Vec::new();
    let members: BTreeSet<&str> = graph.members().into_iter().collect();
    for (name, _) in LAYERS {
        if !members.contains(name) {
            faults.push(format!("{name} has a layer but is no member of the workspace"));
        }
    }
    for member in members {
        let Some(layer) = Layer::of(member) else {
            faults.push(format!("{member} has no layer: add it to LAYERS in crates/xtask/src/layers.rs"));
            continue;
        };
        for (kind, other) in graph.member_uses(member) {
            // Tests may look anywhere: a conformance suite runs an adapter against a service.
            if kind == Use::Build && Layer::of(other).is_some_and(|other| !layer.may_use(other)) {
                faults.push(format!("{member} ({layer:?}) may not use {other}"));
            }
        }
        if layer == Layer::Domain {
            for outside in OUTSIDE {
                if let Some(way) = graph.way(member, outside) {
                    faults.push(format!("{member} reaches {outside}: {}", way.join(" → ")));
                }
            }
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_keeps_its_layers() {
        check(&Workspace::find().unwrap()).unwrap();
    }

    /// A graph with every member and the edges of a healthy workspace.
    fn healthy() -> Graph {
        let mut graph = Graph::default();
        for (name, _) in LAYERS {
            graph.add(name, name, true);
        }
        for outside in OUTSIDE {
            graph.add(outside, outside, false);
        }
        graph.add("serde", "serde", false);
        graph.connect("cooper-types", "serde", Use::Build);
        graph.connect("cooper-engine", "cooper-types", Use::Build);
        graph.connect("cooper-store", "cooper-ports", Use::Build);
        graph.connect("cooper-store", "sqlx", Use::Build);
        graph.connect("cooper-server", "cooper-store", Use::Build);
        graph.connect("cooper-server", "cooper-agent", Use::Build);
        graph.connect("cooper", "cooper-server", Use::Build);
        // Tests may use what the crate itself may not.
        graph.connect("cooper-docker", "cooper-registry", Use::Test);
        graph.connect("cooper-engine", "tokio", Use::Test);
        graph
    }

    fn check_fault(change: impl FnOnce(&mut Graph), expect: &str) {
        let mut graph = healthy();
        change(&mut graph);
        assert_eq!(faults(&graph), [expect]);
    }

    #[test]
    fn a_healthy_graph_has_no_faults() {
        assert_eq!(faults(&healthy()), [""; 0]);
    }

    #[test]
    fn the_domain_reaches_no_runtime_not_even_through_others() {
        check_fault(
            |graph| graph.connect("cooper-spec", "axum", Use::Build),
            "cooper-spec reaches axum: cooper-spec → axum",
        );
        check_fault(
            |graph| {
                graph.add("handy", "handy", false);
                graph.connect("cooper-engine", "handy", Use::Build);
                graph.connect("handy", "tokio", Use::Build);
            },
            "cooper-engine reaches tokio: cooper-engine → handy → tokio",
        );
        check_fault(
            |graph| {
                // A second version of a crate is the same crate.
                graph.add("tokio 0.2", "tokio", false);
                graph.connect("cooper-types", "tokio 0.2", Use::Build);
                graph.connect("cooper-engine", "tokio 0.2", Use::Test);
                // Keep the fault to one line: nobody else stands on this one.
                graph.disconnect("cooper-engine", "cooper-types");
            },
            "cooper-types reaches tokio: cooper-types → tokio",
        );
    }

    #[test]
    fn arrows_point_down() {
        for (from, to, layer) in [
            ("cooper-types", "cooper-ports", "Domain"),
            ("cooper-ports", "cooper-store", "Contract"),
            ("cooper-ports", "cooper-api", "Contract"),
            ("cooper-blobs", "cooper-store", "Adapter"),
            ("cooper-registry", "cooper-store", "Service"),
            ("cooper-client", "cooper-registry", "Service"),
            ("cooper-agent", "cooper", "Wiring"),
            ("xtask", "cooper-types", "Tool"),
        ] {
            check_fault(|graph| graph.connect(from, to, Use::Build), &format!("{from} ({layer}) may not use {to}"));
        }
    }

    #[test]
    fn a_new_crate_needs_a_layer_and_a_gone_one_loses_it() {
        check_fault(
            |graph| graph.add("cooper-extra", "cooper-extra", true),
            "cooper-extra has no layer: add it to LAYERS in crates/xtask/src/layers.rs",
        );
        check_fault(
            |graph| graph.add("cooper-blobs", "cooper-blobs", false),
            "cooper-blobs has a layer but is no member of the workspace",
        );
    }
}
