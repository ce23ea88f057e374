//! What one node does: it receives notifications, sends beats, and gains and loses trust.

use super::{Beat, Event, Link, Node, Pin, Registry, RegistryGuard, Row, WINDOW};

impl Node {
    pub(super) fn pass(&mut self) {
        self.trust = self.trust.saturating_sub(1);
        self.proved = self.proved.saturating_sub(1);
        if let Pin::Doubted(left) = &mut self.pin {
            *left = left.saturating_sub(1);
        }
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
            Event::Revoked => {
                self.holds = false;
                self.doubt();
            }
            Event::Tick(_) if !policy.holds(RegistryGuard::OwnBeat) => self.prove(0),
            Event::Tick(own) => {
                if let Some(proved) = self.pending.iter().find(|beat| Some(beat.number) == own).copied() {
                    self.prove(proved.age);
                    self.pending.retain(|beat| beat.number > proved.number);
                }
            }
            Event::Request(request) => {
                let is_doubted = matches!(self.pin, Pin::Doubted(_));
                if is_doubted && policy.holds(RegistryGuard::HeardWhenSettled) {
                    self.unsettled = self.unsettled.max(request);
                } else {
                    self.heard = self.heard.max(request);
                }
            }
            Event::Barrier { age } => self.prove(age),
            Event::Lost => {
                self.listening = false;
                (self.trust, self.holds) = (0, false);
                if policy.holds(RegistryGuard::HeardOfConnection) {
                    (self.heard, self.unsettled) = (0, 0);
                }
                if policy.holds(RegistryGuard::BeatOfConnection) {
                    self.pending.clear();
                }
            }
            Event::Listening => {
                self.listening = true;
                if policy.holds(RegistryGuard::DoubtWhenListening) {
                    self.doubt();
                } else {
                    self.unverified = true;
                }
            }
        }
    }

    fn prove(&mut self, age: u8) {
        if std::mem::take(&mut self.unverified) {
            self.doubt();
        }
        self.trust = self.trust.max(WINDOW - age);
        self.proved = self.proved.max(WINDOW - age);
    }

    /// What was proved before holds for the pin. Of two doubts, the earlier end counts.
    fn doubt(&mut self) {
        self.pin = match self.pin {
            Pin::Nothing => Pin::Nothing,
            Pin::Proved => Pin::Doubted(self.proved),
            Pin::Doubted(left) => Pin::Doubted(left.min(self.proved)),
        };
    }

    /// The database says what has become of the session.
    pub(super) fn look_up(&mut self, revoked: bool) {
        self.pin = if revoked { Pin::Nothing } else { Pin::Proved };
        self.heard = self.heard.max(std::mem::take(&mut self.unsettled));
    }

    pub(super) fn pin_lives(&self) -> bool {
        match self.pin {
            Pin::Nothing => false,
            Pin::Proved => self.proved > 0,
            Pin::Doubted(left) => left.min(self.proved) > 0,
        }
    }
}
