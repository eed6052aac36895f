//! Datagrams on sockets that are only numbers.

use std::future::Future;
use std::pin::pin;
use std::task::Context;

use super::*;

type Outcome = Result<Vec<u8>, ExchangeError>;

fn upstream() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 53], 53))
}

fn flights() -> Flights<u16> {
    Flights::new(std::iter::once(upstream()))
}

fn query(id: u16) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    let mut query = vec![high, low];
    query.extend(b"\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x00\x00\x01\x00\x01");
    query
}

fn reply(query: &[u8]) -> Vec<u8> {
    let mut reply = query.to_vec();
    reply[2] |= 0x80;
    reply
}

fn outcome(flight: &Flight<'_, u16>) -> Option<Outcome> {
    match pin!(flight.answer()).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => Some(outcome),
        Poll::Pending => None,
    }
}

#[test]
fn only_the_asked_server_socket_id_and_question_end_a_flight() {
    let flights = flights();
    let asked = query(0x1234);
    let flight = flights.begin(1, upstream(), &asked, Casing::Drawn).unwrap();
    let good = reply(&asked);
    let other_port = SocketAddr::from(([192, 0, 2, 53], 54));
    let stranger = SocketAddr::from(([192, 0, 2, 54], 53));
    let mut other_name = good.clone();
    other_name[13] = b'b';
    for (socket, from, datagram, arrival) in [
        (1, stranger, &good[..], Arrival::WrongSource),
        (1, other_port, &good, Arrival::WrongSource),
        (2, upstream(), &good, Arrival::WrongId),
        (1, upstream(), &reply(&query(0x1235)), Arrival::WrongId),
        (1, stranger, &reply(&query(0x1235)), Arrival::WrongSource),
        (1, upstream(), &asked, Arrival::WrongQuestion),
        (1, upstream(), &good[..12], Arrival::WrongQuestion),
        (1, upstream(), &good[..11], Arrival::WrongId),
        (1, upstream(), &other_name, Arrival::WrongQuestion),
    ] {
        let delivery = Delivery { arrival, is_flooded: false };
        assert_eq!(flights.deliver(socket, from, datagram), delivery);
        assert_eq!(outcome(&flight), None, "{arrival:?}");
    }
    assert_eq!(flights.deliver(1, upstream(), &good).arrival, Arrival::Answer);
    let mut second = good.clone();
    second[3] = 2;
    flights.deliver(1, upstream(), &second);
    assert_eq!(outcome(&flight), Some(Ok(good)));
}

#[test]
fn late_answers_are_no_forgeries() {
    let flights = flights();
    for id in 0..100 {
        drop(flights.begin(1, upstream(), &query(id), Casing::Drawn).unwrap());
        let delivery = flights.deliver(1, upstream(), &reply(&query(id)));
        assert_eq!(delivery, Delivery { arrival: Arrival::Late, is_flooded: false });
    }
    assert!(flights.is_empty());
    flights.forget(1);
    let delivery = flights.deliver(1, upstream(), &reply(&query(7)));
    assert_eq!(delivery.arrival, Arrival::WrongId, "of a closed socket nothing is remembered");
}

#[test]
fn thousands_of_late_answers_are_no_flood() {
    let flights = flights();
    let healthy = flights.begin(1, upstream(), &query(60_000), Casing::Drawn).unwrap();
    for id in 0..4_000 {
        drop(flights.begin(1, upstream(), &query(id), Casing::Drawn).unwrap());
    }
    for id in 0..4_000 {
        let delivery = flights.deliver(1, upstream(), &reply(&query(id)));
        assert_eq!(delivery, Delivery { arrival: Arrival::Late, is_flooded: false });
    }
    assert_eq!(outcome(&healthy), None);
}

#[test]
fn many_answers_make_up_for_a_stray_and_few_do_not() {
    for (answers, is_forgiven) in [(ANSWERS_PER_STRAY, true), (1, false)] {
        let flights = flights();
        // Without it nothing is noted of the socket.
        drop(flights.begin(1, upstream(), &query(50_000), Casing::Drawn).unwrap());
        let mut floods = 0;
        for _ in 0..2 * STRAYS_MAX {
            let delivery = flights.deliver(1, upstream(), &reply(&query(60_000)));
            floods += u32::from(delivery.is_flooded);
            for _ in 0..answers {
                let flight = flights.begin(1, upstream(), &query(7), Casing::Drawn).unwrap();
                flights.deliver(1, upstream(), &reply(&query(7)));
                assert!(outcome(&flight).unwrap().is_ok());
            }
        }
        assert_eq!(floods == 0, is_forgiven, "{answers}");
    }
}

#[test]
fn casing_that_was_not_drawn_need_not_come_back() {
    let flights = flights();
    let flight = flights.begin(1, upstream(), &query(1), Casing::Plain).unwrap();
    let mut other = reply(&query(1));
    other[13] = b'A';
    assert_eq!(flights.deliver(1, upstream(), &other).arrival, Arrival::Answer);
    assert_eq!(outcome(&flight), Some(Ok(other)));
}

#[test]
fn flood_of_guesses_puts_all_queries_of_that_socket_in_doubt_and_no_others() {
    let flights = flights();
    let [first, second] =
        [1, 2].map(|id| flights.begin(1, upstream(), &query(id), Casing::Drawn).unwrap());
    let elsewhere = flights.begin(2, upstream(), &query(1), Casing::Drawn).unwrap();
    for guess in 0..STRAYS_MAX {
        assert_eq!(outcome(&first), None);
        let id = 1_000 + u16::try_from(guess).unwrap();
        let delivery = flights.deliver(1, upstream(), &reply(&query(id)));
        assert_eq!(delivery.is_flooded, guess + 1 == STRAYS_MAX);
    }
    let doubt = Some(Err(ExchangeError::Doubtful(Doubt::Flood)));
    assert_eq!((outcome(&first), outcome(&second)), (doubt.clone(), doubt));
    assert_eq!(outcome(&elsewhere), None);
}

#[test]
fn datagrams_from_strangers_put_nothing_in_doubt() {
    let flights = flights();
    let flight = flights.begin(1, upstream(), &query(1), Casing::Drawn).unwrap();
    let stranger = SocketAddr::from(([198, 51, 100, 1], 53));
    for id in 0..10 * u16::try_from(STRAYS_MAX).unwrap() {
        assert!(!flights.deliver(1, stranger, &reply(&query(id))).is_flooded);
    }
    assert_eq!(outcome(&flight), None);
}

#[test]
fn answer_in_another_casing_is_doubtful() {
    let flights = flights();
    let flight = flights.begin(1, upstream(), &query(1), Casing::Drawn).unwrap();
    let mut other = reply(&query(1));
    other[13] = b'A';
    assert_eq!(flights.deliver(1, upstream(), &other).arrival, Arrival::OtherCasing);
    assert_eq!(outcome(&flight), Some(Err(ExchangeError::Doubtful(Doubt::Casing))));
}

#[test]
fn refusal_ends_the_flight_to_that_upstream_only() {
    let flights = flights();
    let flight = flights.begin(1, upstream(), &query(7), Casing::Drawn).unwrap();
    let stranger = SocketAddr::from(([192, 0, 2, 54], 53));
    flights.refuse(1, 7, Some(stranger), ExchangeError::Unreachable);
    flights.refuse(1, 8, None, ExchangeError::Unreachable);
    flights.refuse(2, 7, None, ExchangeError::Unreachable);
    assert_eq!(outcome(&flight), None);
    flights.refuse(1, 7, Some(upstream()), ExchangeError::Unreachable);
    assert_eq!(outcome(&flight), Some(Err(ExchangeError::Unreachable)));
}

#[test]
fn id_is_in_flight_once_on_a_socket() {
    let flights = flights();
    let first = flights.begin(1, upstream(), &query(7), Casing::Drawn).unwrap();
    assert!(flights.begin(1, upstream(), &query(7), Casing::Drawn).is_none());
    let second = flights.begin(2, upstream(), &query(7), Casing::Drawn).unwrap();
    assert_eq!((flights.len(), first.socket(), second.socket()), (2, 1, 2));
    drop(first);
    assert!(flights.begin(1, upstream(), &query(7), Casing::Drawn).is_some());
}
