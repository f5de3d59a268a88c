//! The engine port's conformance suite, run on a real Docker Engine and on the scripted fake, and what only a real
//! engine can show.

mod bench;
mod containers;
mod context;
mod docker;
mod holdings;
mod networks;
mod pretenders;
mod registry;
mod rooms;
mod suite;
mod volumes;

use bench::{DockerBench, ScriptedBench};

/// Runs each function of the suite on both engines.
macro_rules! conformance {
    ($suite:ident, $on_docker:ident, $on_script:ident: $($name:ident),* $(,)?) => {
        mod $on_docker {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::bench::run(super::DockerBench::start().await, super::$suite::$name).await;
            })*
        }
        mod $on_script {
            $(#[tokio::test]
            async fn $name() {
                super::bench::run(super::ScriptedBench::start().await, super::$suite::$name).await;
            })*
        }
    };
}

conformance![
    suite, on_docker, on_script:
    it_says_what_it_is_and_answers_pings,
    it_says_what_it_keeps_and_a_cache_within_its_budget_stays,
    a_build_tells_its_vertices_and_output_and_gives_an_image,
    a_second_build_comes_from_the_cache,
    a_build_without_a_listener_succeeds,
    bases_are_resolved_to_digests,
    a_failing_run_gives_its_exit_code,
    a_missing_dockerfile_is_named,
    a_bad_line_is_named,
    an_unknown_base_image_is_named,
    an_unknown_target_is_named,
    a_missing_secret_is_named,
    a_cancelled_build_ends_without_its_run,
    a_build_that_was_cancelled_before_it_began_does_nothing,
    a_push_gives_the_manifests_digest,
    a_push_of_an_image_that_is_gone_says_so,
    a_push_needs_a_registry_and_a_tag,
    a_cancelled_push_ends_without_its_registry,
    reaping_takes_the_owners_names_only,
    names_are_removed_once_or_twice,
];

conformance![
    containers, containers_on_docker, containers_on_script:
    a_container_gives_its_output_and_exit_code,
    an_image_that_is_not_there_is_named,
    what_the_placement_lacks_is_named,
    a_cancelled_container_ends_without_its_command,
    a_dropped_container_ends,
    a_container_that_was_cancelled_before_it_began_does_nothing,
    a_detached_container_goes_on_until_its_placement_ends,
    closing_a_placement_ends_what_runs,
    an_archive_comes_back_as_it_was,
    an_archive_without_a_place_is_refused,
    a_placement_that_was_cancelled_leaves_nothing,
    removing_a_placement_takes_its_things_only,
    reaping_takes_placements,
    a_pulled_image_is_there,
    a_pull_of_a_missing_image_is_named,
    a_cancelled_pull_ends_at_once,
];
