//! Faults of the wire between one node and the server.

use anyhow::Result;

use crate::conductor::Stage;
use crate::dice::Dice;

/// Both wires of a node, or one of them, at once.
pub(super) async fn cut(stage: &Stage, dice: &mut Dice) -> Result<()> {
    let node = &stage.nodes[dice.index(stage.nodes.len())];
    let which = dice.roll(3);
    if which != 1 {
        node.ear.cut();
    }
    if which != 0 {
        node.pool.cut();
    }
    Ok(())
}
