// Connections to peers: made when first needed, kept warm, dialled at the directory's address of
// the moment.
//
// Each kind of traffic to a peer has a TCP connection of its own, so that votes and heartbeats
// never wait behind forwarded writes in one socket. Reconnecting is quick (50 to 500 ms; gRPC's own
// default begins at one second, longer than an election), a host that vanished without a word is
// noticed by keepalive pings.
//
// Any thread.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "base/ids.h"
#include "grpcpp/security/credentials.h"
#include "grpcpp/server_builder.h"
#include "quorate/v1/raft.grpc.pb.h"
#include "services/peer_directory.h"

namespace quorate::services {

// No message between peers is larger, either way: the largest entry (4 MiB of a transaction,
// encoded) with a wide margin, as one AppendEntries may hold one entry beyond its 1 MiB.
inline constexpr int kPeerMessageBytesMax = 64 << 20;

// What the peer port's server needs to match PeerChannels: message size, and keepalive pings that
// are tolerated. Call it on the builder of the peer port.
void SetPeerServerOptions(grpc::ServerBuilder* builder);

class PeerChannels {
 public:
  enum class Kind : uint8_t { kReplication, kControl, kForward, kSnapshot };
  using Stub = std::shared_ptr<v1::Raft::Stub>;

  // `directory` outlives this. Null credentials: plain text.
  explicit PeerChannels(const PeerDirectory* directory,
                        std::shared_ptr<grpc::ChannelCredentials> credentials = nullptr);

  // A stub at the store's current address; null when the directory does not know the store.
  Stub For(StoreId store, Kind kind);
  Stub At(const std::string& address, Kind kind);

  // Connections beyond this are made anew: the least recently used one goes.
  static constexpr size_t kChannelsMax = 256;

 private:
  struct Entry {
    Stub stub;
    uint64_t used = 0;
  };
  const PeerDirectory* const directory_;
  const std::shared_ptr<grpc::ChannelCredentials> credentials_;
  std::mutex mutex_;
  uint64_t uses_ = 0;                                       // protected by mutex_
  std::map<std::pair<std::string, Kind>, Entry> channels_;  // protected by mutex_
};

}  // namespace quorate::services
