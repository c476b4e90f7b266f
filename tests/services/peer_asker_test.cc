// Asking who is there, over loopback: somebody who answers, and somebody who takes the connection
// and says nothing.
#include "services/peer_asker.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <future>
#include <string>

#include "grpcpp/server_builder.h"
#include "services/raft_service.h"

namespace quorate::services {
namespace {

// Listens, and never reads.
class SilentListener {
 public:
  SilentListener() : socket_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    auto* const any = reinterpret_cast<sockaddr*>(&address);
    EXPECT_EQ(::bind(socket_, any, size), 0);
    EXPECT_EQ(::listen(socket_, 16), 0);
    EXPECT_EQ(::getsockname(socket_, any, &size), 0);
    address_ = "127.0.0.1:" + std::to_string(ntohs(address.sin_port));
  }
  ~SilentListener() { ::close(socket_); }
  const std::string& address() const { return address_; }

 private:
  const int socket_;
  std::string address_;
};

class PeerAskerTest : public ::testing::Test {
 protected:
  using Reply = absl::StatusOr<v1::IdentifyResponse>;
  std::future<Reply> Ask(const std::string& address) {
    auto promise = std::make_shared<std::promise<Reply>>();
    v1::IdentifyRequest request;
    request.mutable_header()->set_from_store(0xA1);
    give_up_ = asker_.Ask(address, request, true,
                          [promise](Reply reply) { promise->set_value(std::move(reply)); });
    return promise->get_future();
  }

  PeerDirectory directory_;
  PeerChannels channels_{&directory_};
  PeerAsker asker_{&channels_, &directory_};
  std::function<void()> give_up_;
};

TEST_F(PeerAskerTest, WhoAnswersIsKnownFromThenOn) {
  PeerDirectory other;
  RaftService service(StoreId(0xA2),
                      {.identify =
                           [](const raft::IdentifyRequest&) {
                             raft::IdentifyReply reply;
                             reply.store = StoreId(0xA2);
                             reply.name = "n2";
                             reply.address = "advertised:7000";
                             return reply;
                           },
                       .propose = nullptr,
                       .born = nullptr},
                      &other);
  int port = 0;
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&service);
  const auto server = builder.BuildAndStart();
  const Reply reply = Ask("127.0.0.1:" + std::to_string(port)).get();
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(reply->name(), "n2");
  EXPECT_EQ(directory_.Find(StoreId(0xA2)), "advertised:7000");
  give_up_();  // too late for anything
  server->Shutdown();
}

// --- Nobody answers ---

TEST_F(PeerAskerTest, AQuestionThatIsGivenUpEnds) {
  const SilentListener silent;
  std::future<Reply> reply = Ask(silent.address());
  give_up_();
  EXPECT_FALSE(reply.get().ok());
}

TEST_F(PeerAskerTest, StoppingEndsWhatIsOpenAndRefusesTheRest) {
  const SilentListener silent;
  std::future<Reply> open = Ask(silent.address());
  asker_.Stop();
  ASSERT_EQ(open.wait_for(std::chrono::seconds(0)), std::future_status::ready);
  EXPECT_FALSE(open.get().ok());
  std::future<Reply> late = Ask(silent.address());
  ASSERT_EQ(late.wait_for(std::chrono::seconds(0)), std::future_status::ready);
  EXPECT_EQ(late.get().status().code(), absl::StatusCode::kCancelled);
}

// What a callback still holds when all is torn down would end gRPC's threads from one of them.
TEST_F(PeerAskerTest, NothingOfAQuestionIsLeftWhenStoppingHasReturned) {
  const SilentListener silent;
  for (int i = 0; i < 20; ++i) {
    PeerChannels channels(&directory_);
    PeerAsker asker(&channels, &directory_);
    auto token = std::make_shared<int>(i);
    const std::weak_ptr<int> held = token;
    asker.Ask(silent.address(), v1::IdentifyRequest(), true,
              [token = std::move(token)](const Reply&) {});
    asker.Stop();
    ASSERT_TRUE(held.expired()) << "round " << i;
  }
}

}  // namespace
}  // namespace quorate::services
