//! A server that does nothing but answer, with messages as large as ours: what a call costs by itself.

use std::net::SocketAddr;

use anyhow::Result;
use longtake_proto::v1 as pb;
use longtake_proto::v1::content_service_server::{ContentService, ContentServiceServer};
use tonic::{Request, Response, Status};

struct Echo;

#[tonic::async_trait]
impl ContentService for Echo {
    async fn submit_content(
        &self,
        request: Request<pb::SubmitContentRequest>,
    ) -> Result<Response<pb::SubmitContentResponse>, Status> {
        let request = request.into_inner();
        Ok(Response::new(pb::SubmitContentResponse {
            run_id: request.request_id,
            created: true,
            state: pb::run::State::Running.into(),
            requested_modalities: request.requested_modalities,
            preferred_modality: request.preferred_modality,
        }))
    }

    async fn batch_submit_content(
        &self,
        _: Request<pb::BatchSubmitContentRequest>,
    ) -> Result<Response<pb::BatchSubmitContentResponse>, Status> {
        Err(Status::unimplemented("an echo"))
    }

    async fn get_content(
        &self,
        _: Request<pb::GetContentRequest>,
    ) -> Result<Response<pb::GetContentResponse>, Status> {
        Err(Status::unimplemented("an echo"))
    }
}

/// Serves until it is killed.
pub async fn run(address: SocketAddr) -> Result<()> {
    let service = ContentServiceServer::new(Echo);
    tonic::transport::Server::builder().tcp_nodelay(true).add_service(service).serve(address).await?;
    Ok(())
}
