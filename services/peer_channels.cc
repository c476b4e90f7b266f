#include "services/peer_channels.h"

#include <algorithm>

#include "grpcpp/create_channel.h"
#include "grpcpp/support/channel_arguments.h"

namespace quorate::services {
namespace {

// A peer that says nothing for so long is pinged, and is gone when it does not answer in time.
constexpr int kKeepaliveTimeMs = 2000;
constexpr int kKeepaliveTimeoutMs = 2000;

grpc::ChannelArguments Arguments(PeerChannels::Kind kind) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kPeerMessageBytesMax);
  arguments.SetMaxSendMessageSize(kPeerMessageBytesMax);
  // "min" is also how long one attempt to connect may take: a name to resolve, a handshake.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 1000);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 500);
  arguments.SetInt(GRPC_ARG_DNS_MIN_TIME_BETWEEN_RESOLUTIONS_MS, 1000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveTimeMs);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  // What we retry and when is our decision, with what we know of the session.
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  // A connection of its own for each kind: channels with the same arguments share one.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt("quorate.kind", static_cast<int>(kind));
  return arguments;
}

}  // namespace

void SetPeerServerOptions(grpc::ServerBuilder* builder) {
  builder->SetMaxReceiveMessageSize(kPeerMessageBytesMax);
  builder->SetMaxSendMessageSize(kPeerMessageBytesMax);
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                              kKeepaliveTimeMs / 4);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  // A follower notices by the same means that a leader's host is gone, and frees its streams.
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveTimeMs);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  // Two servers on one port would each take some of the connections.
  builder->AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
}

PeerChannels::PeerChannels(const PeerDirectory* directory,
                           std::shared_ptr<grpc::ChannelCredentials> credentials)
    : directory_(directory),
      credentials_(credentials ? std::move(credentials) : grpc::InsecureChannelCredentials()) {}

PeerChannels::Stub PeerChannels::For(StoreId store, Kind kind) {
  const auto address = directory_->Find(store);
  return address ? At(*address, kind) : nullptr;
}

PeerChannels::Stub PeerChannels::At(const std::string& address, Kind kind) {
  std::lock_guard lock(mutex_);
  Entry& entry = channels_[{address, kind}];
  entry.used = ++uses_;
  if (entry.stub == nullptr) {
    entry.stub =
        v1::Raft::NewStub(grpc::CreateCustomChannel(address, credentials_, Arguments(kind)));
    if (channels_.size() > kChannelsMax) {
      // Calls that are open hold their channel: only the warm connection is lost.
      channels_.erase(std::min_element(
          channels_.begin(), channels_.end(),
          [](const auto& a, const auto& b) { return a.second.used < b.second.used; }));
    }
  }
  return channels_.at({address, kind}).stub;
}

}  // namespace quorate::services
