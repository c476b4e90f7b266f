#include <unistd.h>

#include <iostream>

#include "tools/cli.h"
#include "tools/interrupt.h"

int main(int argc, char** argv) {
  quorate::tools::InstallInterrupts();
  quorate::tools::Io io{std::cin,
                        std::cout,
                        std::cerr,
                        isatty(STDIN_FILENO) == 1,
                        isatty(STDOUT_FILENO) == 1,
                        isatty(STDERR_FILENO) == 1};
  return quorate::tools::Run(argc, argv, io);
}
