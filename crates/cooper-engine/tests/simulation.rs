//! A seeded simulation of a server, its agents and the network between them, in virtual time.
//!
//! The state machines are the real ones. The shells around them follow the shape of the real shells, over a model of
//! the store and of the agents' engines. Everything that can go wrong does: messages are lost, doubled and late,
//! streams are cut, processes crash between a commit and what follows from it, engines stop, the server's disk fills, and the wall clock jumps.
//!
//! `COOPER_SIM_SEED=7` plays one seed and shows its trace; `COOPER_SIM_SEEDS=5000` plays that many.

mod simulation {
    mod agent_shell;
    mod engine_model;
    mod network;
    mod oracle;
    mod random;
    mod server_shell;
    mod store_model;
    mod tests;
    mod trouble;
    mod users;
    mod world;
}
