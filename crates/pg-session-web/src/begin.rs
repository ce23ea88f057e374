//! The begin of a request: its tokens are verified, and its session is made.

use crate::client::Client;
use crate::cross_site::{Site, is_unsafe};
use crate::flow_cookie::FlowCookie;
use crate::lost_cookies::is_https;
use crate::page::is_local;
use crate::request_head::{RequestHead, is_below, wants_page};
use crate::session::{Request, Session};
use crate::session_config::SessionConfig;
use crate::transport::Presented;

impl SessionConfig {
    /// Whether a request that has this session already, from a layer further out, goes on with it: for edges. It does if
    /// both would put their token into the same place. Two layers that each save and answer for one cookie would undo each
    /// other's work. The outer layer's settings hold.
    #[must_use]
    pub fn continues(&self, outer: &Session) -> bool {
        self.parts().transport.is_same_place(&outer.sessions().parts().transport)
    }

    /// Begins a request: for edges. Verifies the tokens of the request, which costs no query. Without an authentic one, the
    /// session is anonymous.
    #[must_use]
    pub fn begin(&self, head: &impl RequestHead) -> Session {
        let presented = self.parts().transport.presented(head, &self.parts().signer);
        let client = Client::of(head, &self.parts().address_source, self.parts().address_detail);
        let removals = match presented {
            Presented::Several(_) => self.parts().transport.remove_others(head),
            Presented::Nothing | Presented::Invalid | Presented::Token(_) => Vec::new(),
        };
        // Much of the head matters only for a client's first session.
        let is_first = matches!(presented, Presented::Nothing);
        if matches!(presented, Presented::Token(_) | Presented::Several(_)) {
            self.parts().lost_cookies.returned();
        }
        let mode = head.headers("sec-fetch-mode").next();
        let request = Request {
            client,
            flow_cookies: FlowCookie::all(self.flow_policy(), head.headers("cookie")),
            removals,
            // A client that presents something has nothing that its browser kept back.
            withheld: is_first && self.withholds(head),
            touch: !self.parts().untouched_paths.iter().any(|path| is_below(head.path(), path)),
            https: is_first && is_https(head),
            navigates: mode.is_none_or(|mode| mode == b"navigate"),
            target: is_local(head.target()).then(|| head.target().into()),
            wants_page: wants_page(head, mode),
            read_only: matches!(head.method(), "GET" | "HEAD"),
        };
        Session::new(self.clone(), presented, request)
    }

    fn withholds(&self, head: &impl RequestHead) -> bool {
        self.parts().transport.withholds(is_unsafe(head)) && Site::of(head) == Site::Other
    }
}
