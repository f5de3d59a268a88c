//! What a run does: rules told one by one, and properties that hold for every sequence of events.

mod run {
    mod fixture;
    mod losses;
    mod rules;
}
