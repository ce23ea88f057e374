//! Redis as a session store: a session is a hash, a read is HGETALL, an update of one attribute is HSET, which is the
//! cheapest that such a store can do. Over one multiplexed connection, or over a pool.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, ensure};
use async_trait::async_trait;
use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, Pipeline};

use super::pool::{CONNECTIONS, Pool};
use super::{Peer, Stored};
use crate::payload::{COUNTER, Payload};
use crate::servers::{Listener, Redis};

/// The same lifetime as our sessions have.
const LIFETIME_SECONDS: i64 = 30 * 24 * 3_600;
/// Sessions that one pipeline fills in.
const CHUNK: usize = 1_000;
/// Where updates are published, if they are.
pub(crate) const CHANNEL: &str = "sessions";

/// How commands travel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    /// One connection, commands of all tasks interleaved: what the crate recommends.
    Multiplexed,
    /// Thirty-two connections, each with one command at a time.
    Pooled,
}

/// Whether an update notifies other nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Announce {
    No,
    /// HSET and PUBLISH in one pipeline.
    Published,
}

enum Wire {
    Multiplexed(MultiplexedConnection),
    Pooled(Pool<MultiplexedConnection>),
}

/// Redis with one way to it.
pub(crate) struct RedisPeer {
    wire: Wire,
    payload: Payload,
    announce: Announce,
    sessions: usize,
    created: AtomicU64,
    /// A subscriber of the channel, as each of our nodes is.
    _listener: Option<Listener>,
}

impl RedisPeer {
    /// Connects to a database of its own and fills in numbered sessions.
    pub(crate) async fn fill(
        redis: &Redis,
        way: Way,
        payload: Payload,
        sessions: usize,
        announce: Announce,
    ) -> anyhow::Result<Self> {
        let database = redis.database()?;
        let wire = match way {
            Way::Multiplexed => Wire::Multiplexed(database.connect().await?),
            Way::Pooled => {
                let mut connections = Vec::with_capacity(CONNECTIONS);
                for _ in 0..CONNECTIONS {
                    connections.push(database.connect().await?);
                }
                Wire::Pooled(Pool::of(connections))
            }
        };
        let mut listener = None;
        if announce == Announce::Published {
            listener = Some(database.subscribe(CHANNEL).await?);
        }
        let peer =
            Self { wire, payload, announce, sessions, created: AtomicU64::new(0), _listener: listener };
        peer.fill_in().await?;
        Ok(peer)
    }

    async fn fill_in(&self) -> anyhow::Result<()> {
        let attributes = self.payload.attributes();
        for begin in (0..self.sessions).step_by(CHUNK) {
            let mut pipeline = redis::pipe();
            for session in begin..(begin + CHUNK).min(self.sessions) {
                let key = key_of(session);
                pipeline.hset_multiple(&key, &attributes).ignore().expire(&key, LIFETIME_SECONDS).ignore();
            }
            self.send::<()>(&pipeline).await?;
        }
        Ok(())
    }

    async fn send<T: FromRedisValue>(&self, pipeline: &Pipeline) -> anyhow::Result<T> {
        let answer = match &self.wire {
            // A clone is a handle to the same connection.
            Wire::Multiplexed(connection) => pipeline.query_async(&mut connection.clone()).await,
            Wire::Pooled(pool) => pipeline.query_async(&mut *pool.get().await?).await,
        };
        answer.context("Redis")
    }

    async fn send_one<T: FromRedisValue>(&self, command: &redis::Cmd) -> anyhow::Result<T> {
        let answer = match &self.wire {
            Wire::Multiplexed(connection) => command.query_async(&mut connection.clone()).await,
            Wire::Pooled(pool) => command.query_async(&mut *pool.get().await?).await,
        };
        answer.context("Redis")
    }
}

#[async_trait]
impl Peer for RedisPeer {
    async fn read(&self, session: usize) -> anyhow::Result<()> {
        let attributes: HashMap<String, String> =
            self.send_one(redis::cmd("HGETALL").arg(key_of(session))).await?;
        ensure!(!attributes.is_empty(), "a session is gone");
        std::hint::black_box(attributes);
        Ok(())
    }

    async fn update(&self, session: usize, count: u64) -> anyhow::Result<()> {
        let key = key_of(session);
        let value = self.payload.counter(count);
        match self.announce {
            Announce::No => {
                self.send_one::<i64>(redis::cmd("HSET").arg(&key).arg(COUNTER).arg(value)).await?;
            }
            Announce::Published => {
                let mut pipeline = redis::pipe();
                pipeline.hset(&key, COUNTER, value).ignore().publish(CHANNEL, &key).ignore();
                self.send::<()>(&pipeline).await?;
            }
        }
        Ok(())
    }

    async fn create(&self) -> anyhow::Result<()> {
        let number = self.created.fetch_add(1, Ordering::Relaxed);
        let key = format!("session:created:{number}:{:032x}", fastrand::u128(..));
        let mut pipeline = redis::pipe();
        pipeline.hset_multiple(&key, &self.payload.attributes()).ignore();
        pipeline.expire(&key, LIFETIME_SECONDS).ignore();
        self.send::<()>(&pipeline).await
    }

    async fn stored(&self) -> anyhow::Result<Vec<Stored>> {
        let mut stored = Vec::with_capacity(self.sessions);
        for begin in (0..self.sessions).step_by(CHUNK) {
            let mut pipeline = redis::pipe();
            for session in begin..(begin + CHUNK).min(self.sessions) {
                pipeline.hget(key_of(session), COUNTER);
            }
            for value in self.send::<Vec<String>>(&pipeline).await? {
                stored.push(Stored { count: value.parse()?, version: None });
            }
        }
        Ok(stored)
    }

    async fn rows(&self) -> anyhow::Result<u64> {
        self.send_one(&redis::cmd("DBSIZE")).await
    }
}

/// As long as an id of ours in a key: 32 digits.
fn key_of(session: usize) -> String {
    format!("session:{session:032x}")
}
