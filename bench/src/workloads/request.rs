//! A request from the text of its token to the user and one attribute, beside the same with a JWT.
//!
//! Ours verifies the signature, reads the session from memory and decodes an attribute. A JWT is verified, its expiry is
//! checked, and the same claims are decoded. The tokens are drawn before, into a list that is walked in order.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, anyhow, ensure};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use pg_session::{SessionManager, Signer, SigningKey, Version};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use uuid::Uuid;

use super::lineup::parts;
use super::threads::{Done, STRIDE, on_threads, walk_async};
use crate::contest::{Bench, Contest};
use crate::names::request::{NAME, UNIFORM};
use crate::payload::Payload;
use crate::peers::ours::{Node, Tables};

const SIZES: [(usize, &str); 2] = [(1_000, "1k"), (100_000, "100k")];
const THREADS: [usize; 2] = [1, 2];
/// Tokens in the list that is walked.
const DRAWS: usize = 1 << 17;
/// The attribute that a request reads.
const ATTRIBUTE: &str = "theme";

/// What a session has, as claims.
#[derive(Serialize)]
struct Issued {
    sub: Uuid,
    iat: u64,
    exp: u64,
    #[serde(flatten)]
    attributes: std::collections::HashMap<String, String>,
}

/// What a request reads. The expiry is checked, so it is decoded as well.
#[derive(Deserialize)]
struct Claims {
    sub: Uuid,
    theme: String,
    #[serde(rename = "exp")]
    _exp: u64,
}

/// One way to sign JWTs, with its tokens.
struct Jwt {
    name: &'static str,
    key: DecodingKey,
    validation: Validation,
    tokens: Vec<String>,
}

pub(crate) async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let (plan, servers, book) = parts(bench);
    let mut contest = Contest::new(NAME, UNIFORM);
    for (users, size) in SIZES {
        let tables = Tables::fill(servers, Payload::Small, users).await?;
        let node = tables.node(tables.config()).await?;
        node.fill_memory().await?;
        let signer = Signer::from_base64(&SigningKey::generate()?.expose_base64())?;
        let tokens = tokens_of(&node, &signer);
        let ours = Arc::new((node.manager.clone(), signer, tokens));
        let mut jwts = vec![Arc::new(hs256(users)?)];
        if users == SIZES[0].0 {
            // What they cost does not depend on the number of users; to sign many tokens would take long.
            jwts.push(Arc::new(eddsa(users)?));
            jwts.push(Arc::new(rs256(users)?));
        }
        for threads in THREADS {
            let draws: Arc<[Vec<u32>]> =
                (0..threads as u64).map(|seed| draw(users, seed)).collect::<Result<_, _>>()?;
            let case = format!("{size} users, {threads} thread{}", if threads == 1 { "" } else { "s" });
            let (ours, drawn) = (Arc::clone(&ours), Arc::clone(&draws));
            contest.enter(plan, &format!("ours, {case}"), move |span| {
                let (ours, draws) = (Arc::clone(&ours), Arc::clone(&drawn));
                async move {
                    let handle = Handle::current();
                    on_threads(threads, |thread| {
                        let (manager, signer, tokens) = &*ours;
                        handle.block_on(serve(manager, signer, tokens, &draws[thread], span))
                    })
                }
            });
            for jwt in &jwts {
                let (jwt, draws) = (Arc::clone(jwt), Arc::clone(&draws));
                let name = format!("{}, {case}", jwt.name);
                contest.enter(plan, &name, move |span| {
                    let (jwt, draws) = (Arc::clone(&jwt), Arc::clone(&draws));
                    async move { on_threads(threads, |thread| jwt.serve(&draws[thread], span)) }
                });
            }
        }
    }
    contest.run(plan, book).await
}

fn tokens_of(node: &Node, signer: &Signer) -> Vec<String> {
    let ids = node.tables.ids.iter();
    ids.map(|&id| signer.issue(id, Version::FIRST).expose().to_owned()).collect()
}

/// Numbers of tokens, in random order.
fn draw(users: usize, seed: u64) -> anyhow::Result<Vec<u32>> {
    let users = u32::try_from(users)?;
    let mut random = fastrand::Rng::with_seed(seed);
    Ok((0..DRAWS).map(|_| random.u32(0..users)).collect())
}

async fn serve(
    manager: &SessionManager,
    signer: &Signer,
    tokens: &[String],
    draws: &[u32],
    span: Duration,
) -> anyhow::Result<Done> {
    walk_async(draws, span, async |&token| {
        let verified = signer.verify(&tokens[token as usize])?;
        let session = manager.get(verified.id).min_version(verified.version).or_latest().await?;
        let session = session.context("a session is gone")?;
        let theme: Option<String> = session.get(ATTRIBUTE)?;
        black_box((session.user_id().context("no user")?, theme.context("no attribute")?));
        Ok(())
    })
    .await
}

impl Jwt {
    fn new(
        name: &'static str,
        algorithm: Algorithm,
        users: usize,
        signing: &EncodingKey,
        key: DecodingKey,
    ) -> anyhow::Result<Self> {
        let iat = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let header = Header::new(algorithm);
        let tokens = (0..users).map(|_| {
            let attributes = Payload::Small.attributes().into_iter().collect();
            let claims = Issued { sub: Uuid::new_v4(), iat, exp: iat + 86_400, attributes };
            jsonwebtoken::encode(&header, &claims, signing)
        });
        let tokens = tokens.collect::<Result<Vec<_>, _>>()?;
        let jwt = Self { name, key, validation: Validation::new(algorithm), tokens };
        let other = DecodingKey::from_secret(b"another key of sufficient length");
        let refused = jsonwebtoken::decode::<Claims>(&jwt.tokens[0], &other, &jwt.validation);
        ensure!(refused.is_err(), "{name}: a token of another key was accepted");
        Ok(jwt)
    }

    fn serve(&self, draws: &[u32], span: Duration) -> anyhow::Result<Done> {
        let begun = Instant::now();
        let mut count = 0;
        for stride in draws.chunks(STRIDE / 16).cycle() {
            for &token in stride {
                let token = &self.tokens[token as usize];
                let claims = jsonwebtoken::decode::<Claims>(token, &self.key, &self.validation)?.claims;
                black_box((claims.sub, claims.theme));
            }
            count += stride.len();
            if begun.elapsed() >= span {
                break;
            }
        }
        Ok((count, begun.elapsed()))
    }
}

fn hs256(users: usize) -> anyhow::Result<Jwt> {
    let secret: [u8; 32] = std::array::from_fn(|_| fastrand::u8(..));
    let (signing, key) = (EncodingKey::from_secret(&secret), DecodingKey::from_secret(&secret));
    Jwt::new("JWT HS256", Algorithm::HS256, users, &signing, key)
}

fn eddsa(users: usize) -> anyhow::Result<Jwt> {
    use ring::signature::{Ed25519KeyPair, KeyPair};
    let random = ring::rand::SystemRandom::new();
    let pair = Ed25519KeyPair::generate_pkcs8(&random).map_err(|_| anyhow!("no Ed25519 key"))?;
    let public = Ed25519KeyPair::from_pkcs8(pair.as_ref()).map_err(|_| anyhow!("no Ed25519 key"))?;
    let key = DecodingKey::from_ed_der(public.public_key().as_ref());
    Jwt::new("JWT EdDSA", Algorithm::EdDSA, users, &EncodingKey::from_ed_der(pair.as_ref()), key)
}

/// The key was made for this benchmark and protects nothing.
fn rs256(users: usize) -> anyhow::Result<Jwt> {
    let signing = EncodingKey::from_rsa_der(include_bytes!("rsa/private.der"));
    let key = DecodingKey::from_rsa_der(include_bytes!("rsa/public.der"));
    Jwt::new("JWT RS256", Algorithm::RS256, users, &signing, key)
}
