//! The service `news.News`, with one method: `rpc Listen(Ask) returns (stream Item)`.

use tonic_build::manual::{Builder, Method, Service};

fn main() {
    let listen = Method::builder()
        .name("listen")
        .route_name("Listen")
        .input_type("crate::Ask")
        .output_type("crate::Item")
        .codec_path("tonic_prost::ProstCodec")
        .server_streaming()
        .build();
    Builder::new().compile(&[Service::builder().name("News").package("news").method(listen).build()]);
}
