// The control-plane binary: `tutti VERB ...`. See verbs.cc for the table of verbs.
#include <string>
#include <vector>

#include "ops/cli/verbs.h"

int main(int count, char** words) {
  return tutti::cli::run_verbs(std::vector<std::string>(words + 1, words + count));
}
