use super::*;
use bytes::Bytes;
use cooper_api::rest::VertexUpdate;
use proptest::prelude::*;

fn at(millis: i64) -> Timestamp {
    Timestamp::from_micros(millis * 1000)
}

fn renderer() -> Renderer {
    labelled("")
}

fn labelled(label: &str) -> Renderer {
    let masks = MaskSet::new([&b"hunter22"[..]]).expect("small");
    Renderer::new(masks, "cooper.invalid/x/ca1:1".to_owned(), label.to_owned())
}

fn vertex(id: &str, name: &str, started: Option<i64>, completed: Option<i64>) -> VertexEvent {
    VertexEvent {
        id: id.to_owned(),
        name: name.to_owned(),
        started: started.map(at),
        completed: completed.map(at),
        cached: false,
        error: None,
    }
}

fn log(id: &str, text: &str) -> BuildEvent {
    BuildEvent::Log { vertex: id.to_owned(), stream: OutputStream::Stdout, bytes: Bytes::from(text.to_owned()) }
}

fn status(id: &str, what: &str, current: u64, total: Option<u64>) -> BuildEvent {
    BuildEvent::Status { vertex: id.to_owned(), id: what.to_owned(), current, total }
}

fn text(frames: &[NewFrame]) -> String {
    let text = frames.iter().filter(|frame| frame.stream != Stream::Vertex).flat_map(|frame| frame.data.clone());
    String::from_utf8(text.collect()).expect("text")
}

#[test]
fn every_line_says_whose_it_is_where_others_speak() {
    let mut r = labelled("web | ");
    r.event(BuildEvent::Vertex(vertex("a", "[2/3] RUN make", Some(0), None)), at(0));
    r.event(log("a", "one\ntwo"), at(20));
    r.event(BuildEvent::Vertex(vertex("a", "[2/3] RUN make", Some(0), Some(1000))), at(1000));
    r.finish(at(1000));
    let frames = r.take_frames();
    let expect = "web | #1 [2/3] RUN make\nweb | #1 0.020 one\nweb | #1 1.000 two\nweb | #1 DONE 1.0s\n";
    assert_eq!(text(&frames), expect);
    let news = frames.iter().find(|frame| frame.stream == Stream::Vertex).expect("news");
    let update: VertexUpdate = serde_json::from_slice(&news.data).expect("JSON");
    assert_eq!(update.name, "web | [2/3] RUN make");
}

#[test]
fn a_build_reads_like_dockers() {
    let mut r = renderer();
    r.event(BuildEvent::Vertex(vertex("a", "[internal] load build definition", None, None)), at(0));
    r.event(BuildEvent::Vertex(vertex("a", "[internal] load build definition", Some(0), None)), at(0));
    r.event(status("a", "transferring dockerfile:", 0, None), at(1));
    r.event(status("a", "transferring dockerfile:", 31, None), at(1));
    r.event(BuildEvent::Vertex(vertex("a", "[internal] load build definition", Some(0), Some(20))), at(20));
    r.event(BuildEvent::Vertex(vertex("a", "[internal] load build definition", Some(21), None)), at(21));
    r.event(BuildEvent::Vertex(vertex("a", "[internal] load build definition", Some(21), Some(40))), at(40));
    r.tick(at(50));
    let cached = VertexEvent { cached: true, ..vertex("c", "[1/3] FROM r.io/base@sha256:00", Some(50), Some(50)) };
    r.event(BuildEvent::Vertex(cached), at(50));
    r.event(BuildEvent::Vertex(vertex("b", "[2/3] RUN make\n  hunter22", Some(60), None)), at(60));
    r.event(log("b", "one\ntwo hunt"), at(183));
    r.event(BuildEvent::Vertex(vertex("b", "[2/3] RUN make\n  hunter22", Some(60), Some(1300))), at(1300));
    // The last output comes after the news that it ended.
    r.event(log("b", "er22 end"), at(1301));
    r.event(BuildEvent::Vertex(vertex("d", "exporting to image", Some(1300), None)), at(1301));
    r.event(status("d", "naming to cooper.invalid/x/ca1:1", 0, None), at(1302));
    r.event(status("d", "exporting layers", 0, None), at(1302));
    let failed = VertexEvent {
        error: Some("no room\nfor hunter22".into()),
        ..vertex("d", "exporting to image", Some(1300), Some(1400))
    };
    r.event(BuildEvent::Vertex(failed), at(1400));
    r.finish(at(1400));
    let frames = r.take_frames();
    let expect = "\
#1 [internal] load build definition
#1 transferring dockerfile: 31B
#1 DONE 0.0s
#2 [1/3] FROM r.io/base@sha256:00
#2 CACHED
#3 [2/3] RUN make ***
#3 0.123 one
#3 1.242 two *** end
#3 DONE 1.2s
#4 exporting to image
#4 exporting layers
#4 ERROR: no room for ***
";
    assert_eq!(text(&frames), expect);
    assert!(frames.iter().all(|frame| frame.vertex.is_some()));
    let news: Vec<VertexUpdate> = frames
        .iter()
        .filter(|frame| frame.stream == Stream::Vertex)
        .map(|frame| serde_json::from_slice(&frame.data).expect("JSON"))
        .collect();
    let last = news.last().expect("some");
    assert_eq!((last.id.as_str(), last.error.as_deref()), ("4", Some("no room\nfor ***")));
    assert!(news.iter().any(|news| news.name == "[2/3] RUN make ***" && news.completed == Some(at(1300))));
}

#[test]
fn unfinished_lines_show_after_two_ticks_and_go_on() {
    let mut r = renderer();
    r.event(log("a", "Password: "), at(0));
    r.tick(at(100));
    assert_eq!(text(&r.take_frames()), "#1 \n");
    r.tick(at(200));
    assert_eq!(text(&r.take_frames()), "#1 0.200 Password: ");
    r.event(log("a", "ok\nnext"), at(300));
    r.tick(at(400));
    r.tick(at(500));
    r.event(log("b", "other\n"), at(500));
    r.event(log("a", " line\r\n"), at(600));
    r.finish(at(700));
    assert_eq!(text(&r.take_frames()), "ok\n#1 0.500 next\n#2 \n#2 0.000 other\n#1 0.600  line\n");
}

#[test]
fn transfers_are_said_now_and_then_and_at_their_end() {
    let mut r = renderer();
    r.event(BuildEvent::Vertex(vertex("a", "pull", Some(0), None)), at(0));
    for step in 0..=100u64 {
        r.event(
            status("a", "sha256:ab", step * 1_000_000, Some(100_000_000)),
            at(i64::try_from(step).expect("small") * 100),
        );
    }
    r.event(BuildEvent::Vertex(vertex("a", "pull", Some(0), Some(10_000))), at(10_000));
    r.finish(at(10_000));
    let frames = r.take_frames();
    let expect = "#1 pull\n#1 sha256:ab 50.00MB / 100.00MB\n#1 sha256:ab 100.00MB / 100.00MB\n#1 DONE 10.0s\n";
    assert_eq!(text(&frames), expect);
    let news = frames.iter().filter(|frame| frame.stream == Stream::Vertex).count();
    assert!((30..50).contains(&news), "{news}");
}

#[test]
fn long_lines_come_in_pieces() {
    let mut r = renderer();
    let long = "x".repeat(MAX_FRAME_BYTES * 2 + 10);
    r.event(log("a", &long), at(0));
    r.event(log("a", "\n"), at(0));
    r.finish(at(0));
    let frames = r.take_frames();
    assert!(frames.iter().all(|frame| frame.data.len() <= MAX_FRAME_BYTES));
    assert_eq!(text(&frames), format!("#1 \n#1 0.000 {long}\n"));
}

proptest! {
    /// However output is cut: every vertex's lines are whole, in order, each with its number.
    #[test]
    fn lines_survive_any_cuts(
        pieces in proptest::collection::vec((0usize..3, "[a-c\n]{0,6}", any::<bool>()), 0..40),
    ) {
        let mut r = renderer();
        let mut said = [String::new(), String::new(), String::new()];
        for (vertex, piece, tick) in &pieces {
            r.event(log(&vertex.to_string(), piece), at(0));
            said[*vertex].push_str(piece);
            if *tick {
                r.tick(at(0));
            }
        }
        r.finish(at(0));
        let frames = r.take_frames();
        for (vertex, said) in said.iter().enumerate() {
            let Some(number) = r.vertices.get(&vertex.to_string()).map(|vertex| vertex.number) else { continue };
            let text = text(&frames);
            let prefix = format!("#{number} 0.000 ");
            let shown: String = text.split_inclusive('\n').filter_map(|line| line.strip_prefix(&prefix)).collect();
            // A line that another vertex broke into has an extra break; nothing else differs.
            prop_assert_eq!(shown.replace('\n', ""), said.replace('\n', ""));
            prop_assert!(shown.matches('\n').count() >= said.matches('\n').count());
        }
    }
}
