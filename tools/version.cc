#include "tools/version.h"

namespace quorate::tools {

const char* const kVersion = QUORATE_VERSION;
const char* const kBuild = QUORATE_BUILD;
#if defined(__clang__)
const char* const kCompiler = "clang " __clang_version__;
#else
const char* const kCompiler = "gcc " __VERSION__;
#endif

}  // namespace quorate::tools
