//! Faults of the wires between one node and the server: that of its pool, that of its listener, or both.

use std::time::Duration;

use anyhow::{Result, bail};
use pg_sandbox::{Direction, Proxy};

use crate::dice::Dice;
use crate::stage::{Member, Stage};

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
pub(super) async fn make(name: &str, stage: &Stage, dice: &mut Dice) -> Result<()> {
    begin(name, stage, dice)?;
    match name {
        "cut" => {}
        // Over the end of an epoch: what was written last in it must not stay hidden.
        "slow-pool" => tokio::time::sleep(dice.millis(3_000, 6_000)).await,
        _ => tokio::time::sleep(dice.millis(1_000, 5_000)).await,
    }
    end(stage);
    Ok(())
}

pub(super) fn begin(name: &str, stage: &Stage, dice: &mut Dice) -> Result<()> {
    let node = &stage.nodes[dice.index(stage.nodes.len())];
    match name {
        "listener-silent" => node.ear.stall(),
        "slow-pool" => node.pool.delay(dice.millis(50, 200)),
        "cut" => either(node, dice, Proxy::cut),
        "delay-1s" => either(node, dice, |wire| wire.delay(Duration::from_secs(1))),
        "throttle" => either(node, dice, |wire| wire.throttle(THROTTLE)),
        "half-open-to-node" => either(node, dice, |wire| wire.drop_direction(Direction::ToClient)),
        "half-open-to-server" => either(node, dice, |wire| wire.drop_direction(Direction::ToServer)),
        "cut-after-bytes" => {
            let bytes = dice.roll(3_000);
            either(node, dice, |wire| wire.cut_after(bytes, Direction::ToClient));
        }
        other => bail!("{other} is no fault of a wire"),
    }
    Ok(())
}

pub(super) fn end(stage: &Stage) {
    stage.nodes.iter().for_each(Member::heal);
}

fn either(node: &Member, dice: &mut Dice, fault: impl Fn(&Proxy)) {
    let which = dice.roll(3);
    if which != 1 {
        fault(&node.ear);
    }
    if which != 0 {
        fault(&node.pool);
    }
}
