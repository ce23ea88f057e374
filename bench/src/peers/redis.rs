//! Redis as a session store: a session is a hash, a read is HGETALL, an update of one attribute is HSET: the cheapest
//! possible. Over one multiplexed connection, or over a pool.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, ensure};
use async_trait::async_trait;
use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, Pipeline, Script};

use super::pool::{CONNECTIONS, Pool};
use super::{Peer, Stored};
use crate::payload::{COUNTER, Payload};
use crate::servers::{Listener, Redis};

/// The same lifetime as our sessions have.
const LIFETIME_SECONDS: i64 = 30 * 24 * 3_600;
/// Sessions that one pipeline fills in.
const CHUNK: usize = 1_000;
/// The field that holds the version, if sessions have one.
const VERSION: &str = "version";
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
    /// What our updates promise: see [`UPDATE`].
    Versioned,
}

/// Updates a session only if it exists and has the version that the update was made from. Increments the version, and
/// publishes it.
const UPDATE: &str = "
    local version = redis.call('HGET', KEYS[1], 'version')
    if not version or version ~= ARGV[1] then return 0 end
    local new = string.format('%d', version + 1)
    redis.call('HSET', KEYS[1], 'version', new, ARGV[2], ARGV[3])
    redis.call('PUBLISH', ARGV[4], KEYS[1] .. '.' .. new)
    return 1";

enum Wire {
    Multiplexed(MultiplexedConnection),
    Pooled(Pool<MultiplexedConnection>),
}

/// Redis with one way to it.
pub(crate) struct RedisPeer {
    wire: Wire,
    payload: Payload,
    announce: Announce,
    script: Script,
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
        if announce != Announce::No {
            listener = Some(database.subscribe(CHANNEL).await?);
        }
        let peer = Self {
            wire,
            payload,
            announce,
            script: Script::new(UPDATE),
            sessions,
            created: AtomicU64::new(0),
            _listener: listener,
        };
        peer.fill_in().await?;
        Ok(peer)
    }

    async fn fill_in(&self) -> anyhow::Result<()> {
        let mut attributes = self.payload.attributes();
        if self.announce == Announce::Versioned {
            attributes.push((VERSION.to_owned(), "1".to_owned()));
        }
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
            Announce::Versioned => {
                // Each update adds one to the version, which was 1.
                let mut update = self.script.key(&key);
                update.arg(count).arg(COUNTER).arg(value).arg(CHANNEL);
                let updated: i64 = match &self.wire {
                    Wire::Multiplexed(connection) => update.invoke_async(&mut connection.clone()).await,
                    Wire::Pooled(pool) => update.invoke_async(&mut *pool.get().await?).await,
                }
                .context("Redis")?;
                ensure!(updated == 1, "an update was made from another version");
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
                pipeline.hmget(key_of(session), &[COUNTER, VERSION]);
            }
            for (count, version) in self.send::<Vec<(String, Option<u64>)>>(&pipeline).await? {
                stored.push(Stored { count: count.parse()?, version });
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
