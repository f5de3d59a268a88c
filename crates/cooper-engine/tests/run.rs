//! What a run does: rules told one by one, and properties that hold for every sequence of events.

mod run {
    mod accept;
    mod agents;
    mod fixture;
    mod generate;
    mod graphs;
    mod losses;
    mod properties;
    mod reruns;
    mod rules;
    mod schedule;
    mod sources;
    mod watch;
}
