//! The shop: what a request shows and does. Knows sessions and no framework.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use futures_util::{Stream, stream};
use pg_sandbox::Proxy;
use pg_session_web::{DeviceId, Error, Privilege, Session};
use serde::{Deserialize, Serialize};

use super::observer::{Observation, Observer};
use super::orders::{Edge, Neighbour, Setup};

/// The page, the same on every node.
pub(super) const PAGE: &str = include_str!("page.html");

/// The attribute that goes along when a visitor signs in.
pub(super) const CART: &str = "cart";
const NAME: &str = "name";
/// The longest name, in characters.
const NAME_CHARS_MAX: usize = 40;
/// The most of one thing in a cart.
const PIECES_MAX: u8 = 99;
/// The interval of the messages of the live feed.
const FEED_INTERVAL: Duration = Duration::from_millis(500);
/// How long a step-up lasts.
const BILLING_FOR: Duration = Duration::from_secs(600);

/// One node's shop.
pub(super) struct Shop {
    name: String,
    edge: Edge,
    neighbours: Vec<Neighbour>,
    observer: Arc<Observer>,
    /// What the node listens through.
    wire: Proxy,
    wire_is_cut: AtomicBool,
}

/// What is behind the step-up.
pub(super) struct Billing;

impl Privilege for Billing {
    const NAME: &'static str = "billing";
}

/// What a shopper asks for.
#[derive(Deserialize, Debug)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub(super) enum Action {
    Login {
        name: Name,
    },
    Logout,
    LogoutOthers,
    LogoutEverywhere,
    LogoutDevice {
        device: DeviceId,
    },
    Add {
        item: Item,
    },
    Remove {
        item: Item,
    },
    StepUp,
    StepDown,
    /// The node receives nothing any more, or again.
    CutWire,
    MendWire,
}

/// A name that can be shown: not empty, and of a length that fits.
#[derive(Deserialize, Debug)]
#[serde(try_from = "String")]
pub(super) struct Name(String);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Debug)]
#[serde(rename_all = "lowercase")]
pub(super) enum Item {
    Apples,
    Bread,
    Cheese,
    Coffee,
}

type Cart = BTreeMap<Item, u8>;

/// The session as the page shows it.
#[derive(Serialize, Debug)]
pub(super) struct View {
    user: Option<String>,
    cart: Cart,
    /// Whether the step-up holds.
    billing: bool,
}

#[derive(Serialize, Debug)]
pub(super) struct DeviceView {
    id: DeviceId,
    current: bool,
    browser: Option<String>,
    address: Option<String>,
    signed_in_s_ago: u64,
}

/// The node and its neighbours.
#[derive(Serialize)]
pub(super) struct Site<'a> {
    name: &'a str,
    nodes: &'a [Neighbour],
}

/// How the node is doing.
#[derive(Serialize)]
pub(super) struct Status<'a> {
    name: &'a str,
    edge: Edge,
    wire_is_cut: bool,
    #[serde(flatten)]
    observation: Observation,
}

impl Shop {
    pub(super) fn new(
        setup: &Setup,
        neighbours: Vec<Neighbour>,
        observer: Arc<Observer>,
        wire: Proxy,
    ) -> Self {
        let (name, edge) = (setup.name.clone(), setup.edge);
        Self { name, edge, neighbours, observer, wire, wire_is_cut: AtomicBool::new(false) }
    }

    pub(super) fn site(&self) -> Site<'_> {
        Site { name: &self.name, nodes: &self.neighbours }
    }

    pub(super) fn status(&self) -> Status<'_> {
        let wire_is_cut = self.wire_is_cut.load(Ordering::Relaxed);
        Status { name: &self.name, edge: self.edge, wire_is_cut, observation: self.observer.observation() }
    }

    /// What the live feed says, until it is dropped.
    pub(super) fn feed(&self) -> impl Stream<Item = String> + Send + 'static {
        let name = self.name.clone();
        stream::unfold(1_u64, move |number| {
            let message = format!("message {number} from node {name}");
            async move {
                tokio::time::sleep(FEED_INTERVAL).await;
                Some((message, number + 1))
            }
        })
    }

    /// Carries out what the shopper asks for, and shows what has become of the session.
    pub(super) async fn act(&self, session: &Session, action: Action) -> Result<View, Error> {
        match action {
            // A real shop would look at a password first.
            Action::Login { name: Name(name) } => {
                session.login(pg_session::UserId::named(&name)).await?;
                session.set(NAME, &name).await?;
            }
            Action::Logout => {
                session.logout().await?;
            }
            Action::LogoutOthers => {
                session.logout_others().await?;
            }
            Action::LogoutEverywhere => {
                session.logout_everywhere().await?;
            }
            Action::LogoutDevice { device } => {
                session.end_device(device).await?;
            }
            Action::Add { item } => {
                change_cart(session, item, |pieces| pieces.saturating_add(1).min(PIECES_MAX)).await?;
            }
            Action::Remove { item } => change_cart(session, item, |pieces| pieces.saturating_sub(1)).await?,
            // A real shop would ask for the password again.
            Action::StepUp => session.elevate(Billing::NAME, BILLING_FOR).await?,
            Action::StepDown => session.revoke_elevation(Billing::NAME).await?,
            Action::CutWire => self.set_wire(true),
            Action::MendWire => self.set_wire(false),
        }
        view(session).await
    }

    fn set_wire(&self, cut: bool) {
        self.wire_is_cut.store(cut, Ordering::Relaxed);
        if cut {
            self.wire.refuse();
            self.wire.cut();
        } else {
            self.wire.heal();
        }
    }
}

pub(super) async fn view(session: &Session) -> Result<View, Error> {
    let user = match session.user_id().await? {
        Some(_) => session.get(NAME).await?,
        None => None,
    };
    let cart = session.get(CART).await?.unwrap_or_default();
    Ok(View { user, cart, billing: session.is_elevated(Billing::NAME).await? })
}

/// Where the user is signed in; nowhere, for a visitor.
pub(super) async fn devices(session: &Session) -> Result<Vec<DeviceView>, Error> {
    if session.user_id().await?.is_none() {
        return Ok(Vec::new());
    }
    let now = SystemTime::now();
    let devices = session.devices().await?.into_iter().map(|device| DeviceView {
        id: device.id,
        current: device.current,
        browser: device.user_agent,
        address: device.address.map(|address| address.to_string()),
        signed_in_s_ago: now.duration_since(device.created_at).unwrap_or_default().as_secs(),
    });
    Ok(devices.collect())
}

/// What only a session that has stepped up gets to see.
pub(super) async fn invoice(session: &Session) -> Result<String, Error> {
    let View { user, cart, .. } = view(session).await?;
    let pieces: u32 = cart.values().copied().map(u32::from).sum();
    let noun = if pieces == 1 { "thing" } else { "things" };
    Ok(format!("{pieces} {noun}, on the card of {} that ends in 4242", user.unwrap_or_default()))
}

/// In one step: no click is lost, however many tabs there are.
async fn change_cart(session: &Session, item: Item, change: fn(u8) -> u8) -> Result<(), Error> {
    let change = |cart: Option<Cart>| {
        let mut cart = cart.unwrap_or_default();
        match change(cart.get(&item).copied().unwrap_or_default()) {
            0 => cart.remove(&item),
            pieces => cart.insert(item, pieces),
        };
        cart
    };
    session.modify(CART, change).await.map(drop)
}

impl TryFrom<String> for Name {
    type Error = &'static str;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        let name = name.trim();
        let fits = !name.is_empty() && name.chars().count() <= NAME_CHARS_MAX;
        if fits { Ok(Self(name.to_owned())) } else { Err("a name has 1 to 40 characters") }
    }
}
