// Who wants a lock, or to be elected: by which keys it is seen, and who comes first.
#pragma once

#include <string>

#include "quorate/v1/config.pb.h"
#include "tools/cli.h"

namespace quorate::tools {

// Whether this key, NAME/ID, may stand for somebody who wants `name`.
bool MayContend(const std::string& name, const std::string& key);
// Whether it does: it is bound to the time-to-live ID.
bool IsContender(const std::string& name, const v1::Item& item);

// `elect --listen`: says who is elected, each time that it is somebody else. The exit code.
int ListenToElection(Invocation& invocation, Client& client, const std::string& name);

}  // namespace quorate::tools
