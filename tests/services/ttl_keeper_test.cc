// Renewals of a node whose writes end as soon as they are made.
#include "services/ttl_keeper.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "services/errors.h"

namespace quorate::services {
namespace {

// A founder is away, so that no write is taken, and clients renew again as soon as they are
// refused.
TEST(TtlKeeper, WritesThatEndAtOnceDoNotNest) {
  int depth = 0, depth_max = 0, writes = 0;
  TtlKeeper keeper(
      [&](const v1::Command&, const CallPtr&, const CallDone& done, const TtlKeeper::TakeAnswer&) {
        ++writes;
        depth_max = std::max(depth_max, ++depth);
        done(MakeError(grpc::StatusCode::UNAVAILABLE, "NOT_BORN", "not yet"), "");
        --depth;
      });
  int left = 1000;
  std::function<void()> renew = [&] {
    keeper.Renew(1,
                 std::make_shared<CallContext>(Instant(std::chrono::seconds(1)),
                                               std::map<std::string, std::string>()),
                 [&](const grpc::Status& status, const std::string&) {
                   EXPECT_EQ(DetailsOf(status).reason, "NOT_BORN");
                   if (--left > 0) renew();
                 });
  };
  renew();
  EXPECT_EQ(left, 0);
  EXPECT_EQ(writes, 1000);
  EXPECT_EQ(depth_max, 1);
}

// (1) A write is on its way. (2) Others come. (3) It ends, on another thread: they go.
TEST(TtlKeeper, AWriteThatEndsLaterSendsTheNext) {
  std::vector<std::pair<v1::Command, CallDone>> writes;
  TtlKeeper keeper(
      [&](v1::Command command, const CallPtr&, CallDone done, const TtlKeeper::TakeAnswer&) {
        writes.emplace_back(std::move(command), std::move(done));
      });
  int ended = 0;
  for (uint64_t ttl : {1, 2, 3}) {
    keeper.Renew(ttl,
                 std::make_shared<CallContext>(Instant(std::chrono::seconds(1)),
                                               std::map<std::string, std::string>()),
                 [&](const grpc::Status&, const std::string&) { ++ended; });
  }
  ASSERT_EQ(writes.size(), 1u);
  writes[0].second(grpc::Status(grpc::StatusCode::UNAVAILABLE, ""), "");
  EXPECT_EQ(ended, 1);
  ASSERT_EQ(writes.size(), 2u);
  EXPECT_EQ(writes[1].first.ShortDebugString(), "keep_alive_ttl { ttl_id: 2 ttl_id: 3 }");
  writes[1].second(grpc::Status(grpc::StatusCode::UNAVAILABLE, ""), "");
  EXPECT_EQ(ended, 3);
  EXPECT_EQ(writes.size(), 2u) << "nobody is left";
}

}  // namespace
}  // namespace quorate::services
