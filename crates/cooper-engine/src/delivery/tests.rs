//! Tables for the usual lives of a delivery, and properties for all of them.

use proptest::prelude::*;

use super::*;

const START: Timestamp = Timestamp::from_micros(1_767_225_600_000_000);
const POLICY: Policy = Policy::DEFAULT;

fn after(seconds: u64) -> Timestamp {
    START.after(Duration::from_secs(seconds))
}

fn begun(delivery: Delivery, now: Timestamp) -> Delivery {
    delivery.apply(Event::Begun, now, &POLICY).expect("it is due")
}

fn ended(delivery: Delivery, now: Timestamp, answer: Answer) -> Delivery {
    delivery.apply(Event::Ended { number: delivery.tries, answer, spread: 1.0 }, now, &POLICY).expect("it is tried")
}

const NOT_NOW: Answer = Answer::NotNow { pause: None };

#[test]
fn pauses_double_up_to_the_longest_and_end_with_the_day() {
    let mut delivery = Delivery::queued(START);
    let mut pauses = Vec::new();
    while let Some(next) = delivery.next() {
        pauses.push(next.since(START).as_secs());
        delivery = ended(begun(delivery, next), next, NOT_NOW);
    }
    assert_eq!(pauses[..8], [0, 2, 6, 14, 30, 62, 126, 254]);
    let last = pauses[pauses.len() - 1];
    assert_eq!((pauses.len(), last), (35, 24 * 3600), "{pauses:?}");
    assert_eq!(delivery.state, State::Failed { at: after(last) });
}

#[test]
fn a_target_that_was_down_gets_what_waited_even_if_the_server_was_down_longer() {
    let late = after(48 * 3600);
    let delivery = begun(Delivery::queued(START), late);
    assert_eq!(ended(delivery, late, Answer::Taken).state, State::Delivered { at: late });
    // One that nobody tried in all that time has its tries.
    let mut delivery = ended(delivery, late, NOT_NOW);
    assert_eq!(delivery.state, State::Due { at: late.after(Duration::from_secs(2)) });
    while let Some(next) = delivery.next() {
        delivery = ended(begun(delivery, next), next, NOT_NOW);
    }
    assert_eq!(delivery.tries, POLICY.tries);
    assert!(matches!(delivery.state, State::Failed { .. }), "{delivery:?}");
}

#[test]
fn what_is_refused_is_given_up_at_the_third_try() {
    let first = ended(begun(Delivery::queued(START), START), START, Answer::Refused);
    let second = ended(begun(first, after(2)), after(2), Answer::Refused);
    assert_eq!(second.state, State::Due { at: after(6) });
    assert_eq!(ended(begun(second, after(6)), after(6), Answer::Refused).state, State::Failed { at: after(6) });
}

#[test]
fn a_target_is_left_alone_for_as_long_as_it_asks_within_reason() {
    let tried = begun(Delivery::queued(START), START);
    let paused = |seconds| {
        let pause = Some(Duration::from_secs(seconds));
        ended(tried, START, Answer::NotNow { pause }).next().expect("due").since(START).as_secs()
    };
    assert_eq!((paused(0), paused(90), paused(100_000)), (2, 90, 3600));
}

#[test]
fn a_try_that_was_lost_is_made_again_and_its_late_end_changes_nothing() {
    let tried = begun(Delivery::queued(START), START);
    assert!(tried.apply(Event::Begun, after(59), &POLICY).is_err(), "it is another's until the lease ends");
    let again = begun(tried, after(60));
    let late = Event::Ended { number: 1, answer: Answer::Taken, spread: 0.0 };
    assert_eq!(again.apply(late, after(61), &POLICY), Err(Refusal(again.state)));
    let lost = again.apply(Event::Lost, after(61), &POLICY).expect("it was tried");
    assert_eq!((lost.state, lost.tries), (State::Due { at: after(61) }, 2));
}

#[test]
fn statuses_mean_what_they_say() {
    let check = |status, answer| assert_eq!(Answer::of_status(status, None), answer, "{status}");
    for status in [200, 202, 204] {
        check(status, Answer::Taken);
    }
    for status in [400, 410, 413, 422] {
        check(status, Answer::Refused);
    }
    for status in [100, 301, 401, 403, 404, 405, 408, 425, 429, 500, 503, 599] {
        check(status, NOT_NOW);
    }
}

fn any_event() -> impl Strategy<Value = Event> {
    let pause = proptest::option::of((0_u64..200_000).prop_map(Duration::from_secs));
    let answer =
        prop_oneof![Just(Answer::Taken), Just(Answer::Refused), pause.prop_map(|pause| Answer::NotNow { pause })];
    prop_oneof![
        3 => Just(Event::Begun),
        3 => (0_u32..6, answer, any::<f64>()).prop_map(|(number, answer, spread)| Event::Ended { number, answer, spread }),
        1 => Just(Event::Lost),
        1 => Just(Event::Dropped),
    ]
}

proptest! {
    #[test]
    fn a_life_is_legal(events in proptest::collection::vec((any_event(), 0_u64..5000), 0..60)) {
        let mut delivery = Delivery::queued(START);
        let mut now = START;
        for (event, pause) in events {
            now = now.after(Duration::from_secs(pause));
            let Ok(next) = delivery.apply(event, now, &POLICY) else { continue };
            prop_assert!(!delivery.has_ended(), "what has ended never changes");
            prop_assert!(next.tries >= delivery.tries && next.queued == delivery.queued);
            prop_assert_eq!(next.tries > delivery.tries, event == Event::Begun);
            if let State::Due { at } = next.state {
                prop_assert!(at >= now && at.since(now) <= POLICY.longest_pause, "{:?} at {}", next, now);
                let end = START.after(POLICY.give_up);
                prop_assert!(at == now || at <= end || now >= end);
            }
            if let Event::Ended { number, .. } = event {
                prop_assert_eq!(number, delivery.tries, "only the newest try ends");
            }
            delivery = next;
        }
    }

    #[test]
    fn every_delivery_ends(answers in proptest::collection::vec((0_u8..3, any::<f64>(), 0_u64..100), 1..200)) {
        let mut delivery = Delivery::queued(START);
        let mut answers = answers.into_iter().cycle();
        let mut steps = 0;
        while let Some(next) = delivery.next() {
            let (kind, spread, took) = answers.next().expect("it goes round");
            let delivery_begun = begun(delivery, next);
            let answer = match kind { 0 => NOT_NOW, 1 => Answer::NotNow { pause: Some(Duration::from_secs(took * 60)) }, _ => Answer::Refused };
            let event = Event::Ended { number: delivery_begun.tries, answer, spread };
            delivery = delivery_begun.apply(event, next.after(Duration::from_secs(took)), &POLICY).expect("it is tried");
            steps += 1;
            prop_assert!(steps < 100, "it goes on for ever");
        }
        let has_failed = matches!(delivery.state, State::Failed { .. });
        prop_assert!(has_failed);
    }
}
