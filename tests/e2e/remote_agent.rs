//! Two network namespaces stand for two machines: the server in one, an agent with an engine of its own in the other.

use cooper_e2e::{Namespace, PrivateEngine};

#[test]
fn a_network_and_an_engine_of_ones_own() {
    let namespace = Namespace::new();
    let other = Namespace::new();
    let cable = namespace.connect(&other);
    let mut engine = PrivateEngine::start(&namespace);
    engine.client().docker(&["info"]).ok();
    engine.stop();
    engine.launch();
    engine.client().docker(&["images"]).ok();
    let listener = other.enter(|| std::net::TcpListener::bind((cable.second.as_str(), 0))).unwrap();
    let address = listener.local_addr().unwrap();
    let connect = || {
        namespace
            .enter(|| std::net::TcpStream::connect_timeout(&address, std::time::Duration::from_millis(500)).is_ok())
    };
    assert!(connect());
    cable.cut();
    assert!(!connect());
    cable.mend();
    cable.slow("1mbit");
    assert!(connect());
    cable.mend();
    assert!(connect());
}
