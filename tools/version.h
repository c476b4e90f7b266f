// Which program this is. QUORATE_VERSION and QUORATE_BUILD come from CMake, for version.cc alone,
// so that a new number compiles one file.
#pragma once

namespace quorate::tools {

extern const char* const kVersion;   // `0.1.0`
extern const char* const kBuild;     // the preset: `release`
extern const char* const kCompiler;  // `gcc 12.2.0`

}  // namespace quorate::tools
