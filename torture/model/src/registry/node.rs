//! What one node does: it receives notifications, sends beats, and gains and loses trust.

use super::{Beat, Event, Link, Node, Registry, RegistryGuard, Row, WINDOW};

impl Node {
    pub(super) fn pass(&mut self) {
        self.trust = self.trust.saturating_sub(1);
        self.pinned = self.pinned.saturating_sub(1);
        self.pending.iter_mut().for_each(|beat| beat.age = WINDOW.min(beat.age + 1));
        for event in &mut self.events {
            if let Event::Barrier { age } = event {
                *age = WINDOW.min(*age + 1);
            }
        }
    }

    pub(super) fn notify(&mut self, policy: &Registry, event: Event) {
        if self.link != Link::Up || self.left {
            return;
        }
        if let Event::Request(request) = event
            && !policy.holds(RegistryGuard::HeardInOrder)
        {
            self.heard = self.heard.max(request);
        }
        self.events.push(event);
    }

    pub(super) fn send_beat(&mut self, policy: &Registry, lost: bool) {
        self.beats += 1;
        let beat = self.beats;
        if !lost || !policy.holds(RegistryGuard::LossProvesNothing) {
            self.pending.push(Beat { number: beat, age: 0 });
        }
        self.sending = Some(Row { beat, heard: self.heard, lost });
    }

    pub(super) fn break_link(&mut self, kept: usize) {
        self.link = Link::Broken;
        self.events.truncate(kept);
    }

    pub(super) fn receive(&mut self, policy: &Registry) {
        match self.events.remove(0) {
            Event::Revoked => (self.holds, self.pinned) = (false, 0),
            Event::Tick(_) if !policy.holds(RegistryGuard::OwnBeat) => self.trust = WINDOW,
            Event::Tick(own) => {
                if let Some(proved) = self.pending.iter().find(|beat| Some(beat.number) == own).copied() {
                    self.trust = WINDOW - proved.age;
                    self.pending.retain(|beat| beat.number > proved.number);
                }
            }
            Event::Request(request) => self.heard = self.heard.max(request),
            Event::Barrier { age } => self.trust = self.trust.max(WINDOW - age),
            Event::Lost => {
                self.listening = false;
                self.pinned = if self.holds { self.trust } else { self.pinned };
                (self.trust, self.holds) = (0, false);
                if policy.holds(RegistryGuard::HeardOfConnection) {
                    self.heard = 0;
                }
                if policy.holds(RegistryGuard::BeatOfConnection) {
                    self.pending.clear();
                }
            }
            // What a gap means for pins is the business of the pins' model. Here they matter while the row says "lost".
            Event::Listening => (self.listening, self.pinned) = (true, 0),
        }
    }
}
