//! Faults of the wires between one node and the server: that of its pool, that of its listener, or both.

use std::time::Duration;

use anyhow::{Result, bail};
use pg_sandbox::{Direction, Proxy};

use crate::cluster::{Cluster, Member};
use crate::rng::Rng;

/// Those that may accompany another fault.
pub(super) const COMPANIONS: &[&str] = &[
    "listener-silent",
    "slow-pool",
    "delay-1s",
    "throttle",
    "half-open-to-node",
    "half-open-to-server",
    "cut-after-bytes",
];

/// Bytes per second: a barrier passes, a busy pool suffers.
const THROTTLE: u64 = 24 * 1024;

/// Makes the fault, lets it last for one to six windows, and ends it.
pub(super) async fn make(name: &str, cluster: &Cluster, rng: &mut Rng) -> Result<()> {
    begin(name, cluster, rng)?;
    match name {
        "cut" => {}
        // Over the end of an epoch: what was written last in it must not stay hidden.
        "slow-pool" => tokio::time::sleep(rng.millis(3_000, 6_000)).await,
        _ => tokio::time::sleep(rng.millis(1_000, 5_000)).await,
    }
    end(cluster);
    Ok(())
}

pub(super) fn begin(name: &str, cluster: &Cluster, rng: &mut Rng) -> Result<()> {
    let node = &cluster.nodes[rng.index(cluster.nodes.len())];
    match name {
        "listener-silent" => node.listener.stall(),
        "slow-pool" => node.pool.delay(rng.millis(50, 200)),
        "cut" => either(node, rng, Proxy::cut),
        "delay-1s" => either(node, rng, |wire| wire.delay(Duration::from_secs(1))),
        "throttle" => either(node, rng, |wire| wire.throttle(THROTTLE)),
        "half-open-to-node" => either(node, rng, |wire| wire.drop_direction(Direction::ToClient)),
        "half-open-to-server" => either(node, rng, |wire| wire.drop_direction(Direction::ToServer)),
        "cut-after-bytes" => {
            let bytes = rng.below(3_000);
            either(node, rng, |wire| wire.cut_after(bytes, Direction::ToClient));
        }
        other => bail!("{other} is no fault of a wire"),
    }
    Ok(())
}

pub(super) fn end(cluster: &Cluster) {
    cluster.members().for_each(Member::heal);
}

fn either(node: &Member, rng: &mut Rng, fault: impl Fn(&Proxy)) {
    let which = rng.below(3);
    if which != 1 {
        fault(&node.listener);
    }
    if which != 0 {
        fault(&node.pool);
    }
}
