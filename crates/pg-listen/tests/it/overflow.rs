//! Slow readers: each learns what it lost, and no other reader loses anything.

use pg_listen::{Event, LostReason};

use uuid::Uuid;

use crate::fixtures::{Proxied, drain, expect_lost, expect_payload, expect_start, notify, started, unique};

#[tokio::test]
async fn an_overflow_is_one_lost_and_a_barrier_brings_back_in_sync() {
    let proxied = Proxied::new().await;
    let listener = proxied.quiet_listener().queue_events_max(16).start().unwrap();
    let channel = unique("overflow");
    let mut subscription = started(&listener, &channel).await;

    let client = proxied.client().await;
    let flood = "SELECT pg_notify($1, n::text) FROM generate_series(1, 1000) n"; // one commit, no barrier within
    client.execute(flood, &[&channel]).await.unwrap();
    listener.barrier().await.unwrap(); // so all of it has arrived, and the subscriber has read none
    assert_eq!(expect_lost(&mut subscription).await, LostReason::Overflow);
    expect_start(&mut subscription).await;

    notify(&client, &channel, "after").await;
    assert_eq!(expect_payload(&mut subscription).await, "after");
    assert_eq!(listener.status().connections(), 1, "the connection has nothing to do with it");
}

#[tokio::test]
async fn a_slow_reader_costs_the_others_nothing() {
    let proxied = Proxied::new().await;
    let listener = proxied.quiet_listener().queue_events_max(16).start().unwrap();
    let channel = unique("neighbours");
    let mut slow = listener.subscribe(&channel).await.unwrap();
    let mut fast = started(&listener, &channel).await;

    let client = proxied.client().await;
    for n in 0..100 {
        notify(&client, &channel, &n.to_string()).await;
        assert_eq!(expect_payload(&mut fast).await, n.to_string());
    }
    let (letters, _) = drain(&mut slow);
    assert!(letters.starts_with('O'), "{letters}");
}

/// Bursts and reads of random sizes, around the queue's bound: a reader learns of each loss.
#[tokio::test]
async fn there_is_no_gap_without_a_lost() {
    let seed = Uuid::new_v4().as_u64_pair().0;
    println!("seed {seed:#x}");
    let mut random = Random(seed);
    let proxied = Proxied::new().await;
    let listener = proxied.quiet_listener().queue_events_max(8).start().unwrap();
    let channel = unique("gaps");
    let mut subscription = listener.subscribe(&channel).await.unwrap();
    listener.wait_connected().await.unwrap();
    let client = proxied.client().await;

    let (mut sent, mut reader) = (0, Reader::default());
    for _ in 0..300 {
        let burst = random.below(12);
        let send = "SELECT pg_notify($1, n::text) FROM generate_series($2::int4 + 1, $3::int4) n";
        client.execute(send, &[&channel, &sent, &(sent + burst)]).await.unwrap();
        sent += burst;
        if random.below(4) > 0 {
            // Sometimes the reader is in the middle of a burst, sometimes after it.
            listener.barrier().await.unwrap();
        }
        for _ in 0..random.below(12) {
            subscription.try_recv().into_iter().for_each(|event| reader.read(&event));
        }
    }
    listener.barrier().await.unwrap();
    while let Some(event) = subscription.try_recv() {
        reader.read(&event);
    }
    assert!(reader.received > 100 && reader.losses > 10, "{reader:?}");
    assert!(
        reader.last == sent || reader.may_have_missed || reader.resumed,
        "the end is missing: {reader:?}"
    );
}

/// What the contract lets a reader conclude.
#[derive(Debug, Default)]
struct Reader {
    last: i32,
    received: u32,
    losses: u32,
    /// A `Lost` or the beginning, and no `Listening` since.
    may_have_missed: bool,
    /// A `Listening`, and no notification since: the next may be any later one.
    resumed: bool,
}

impl Reader {
    fn read(&mut self, event: &Event) {
        match event {
            Event::Listening => {
                self.resumed = true;
                self.may_have_missed = false;
            }
            Event::Lost(reason) => {
                assert_eq!(*reason, LostReason::Overflow);
                self.losses += 1;
                self.may_have_missed = true;
                self.resumed = false;
            }
            Event::Notification(notification) => {
                let n: i32 = notification.payload().parse().unwrap();
                assert!(!self.may_have_missed, "a notification between Lost and Listening");
                let expected = if self.resumed { n > self.last } else { n == self.last + 1 };
                assert!(expected, "{n} after {} without a Lost", self.last);
                self.last = n;
                self.received += 1;
                self.resumed = false;
            }
            Event::InSync { .. } => assert!(!self.may_have_missed, "InSync between Lost and Listening"),
            event => panic!("{event:?}"),
        }
    }
}

/// xorshift64*: a test needs a seed to print, not quality.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: i32) -> i32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let bits = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 40;
        i32::try_from(bits).unwrap() % bound
    }
}
