//! All connections of a core together: what they may hold, and who has to go.

use super::*;

#[test]
fn connections_together_hold_no_more_than_they_may_and_readers_do_not_suffer() {
    let limits = config::Tcp { output_bytes_max: 256 << 10, ..config() };
    let socket = tcp_listener("127.0.0.1:0".parse().unwrap(), 64).unwrap();
    let server = Server::start_within(limits, 1 << 20, vec![socket]);
    let mut lazy: Vec<Client> = (0..20).map(|_| server.client()).collect();
    for client in &mut lazy {
        // More than the kernel takes for them and the listener lets one of them keep.
        client.0.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
        for id in 0..200 {
            if client.0.write_all(&query(id, Mode::Big, 60_000)).is_err() {
                break;
            }
        }
    }
    eventually("some lazy ones are given up", || server.counters.closed_crowded.value() > 0);
    let mut reader = server.client();
    for id in 0..300 {
        reader.send(&query(id, Mode::Big, 60_000));
        assert_eq!(reader.reply().len(), 60_000);
    }
    assert_eq!(server.counters.closed_slow.value(), 0);
}

#[test]
fn half_a_query_is_not_kept_when_there_is_no_room() {
    let socket = tcp_listener("127.0.0.1:0".parse().unwrap(), 64).unwrap();
    let server = Server::start_within(config(), 16 << 10, vec![socket]);
    let half = vec![0xFF; 20_000];
    let mut client = server.client();
    client.send(&half);
    eventually("it is given up", || server.counters.closed_crowded.value() == 1);
    server.client().assert_served(1);
}
