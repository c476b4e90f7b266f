#include <gtest/gtest.h>

#include "tests/raft/core_cluster.h"

namespace quorate::raft::testing {
namespace {
TEST(CoreCluster, ThreeNodesElectAndReplicate) {
  Cluster cluster({"a", "b", "c"}, {}, CoreOptions{});
  cluster.StartAll();
  cluster.Run(std::chrono::milliseconds(400));
  TestNode* leader = cluster.Leader();
  ASSERT_NE(leader, nullptr);
  leader->Propose({"x", "y"});
  cluster.Settle();
  for (TestNode* node : cluster.nodes()) EXPECT_EQ(node->core().applied(), Index(4));
}
}  // namespace
}  // namespace quorate::raft::testing
