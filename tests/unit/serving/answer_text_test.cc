#include "jobs/serving/answer_text.h"

#include <catch2/catch.hpp>

namespace tutti::serving {
namespace {

TEST_CASE("answer text: a stop text is found across tokens and is not shown") {
  AnswerText answer({"END", "\n\n"});
  CHECK(answer.push("one E") == "one ");  // it could be the beginning
  CHECK(answer.push("N") == "");
  CHECK(answer.push("ough") == "ENough");
  CHECK(answer.push(" E") == " ");
  CHECK(answer.push("ND and more") == "");
  CHECK(answer.stopped());
  CHECK(answer.push("nothing") == "");
  CHECK(answer.finish() == "");
}

TEST_CASE("answer text: the earliest of several stop texts counts") {
  AnswerText answer({"bbb", "ab"});
  CHECK(answer.push("xxaabbb") == "xxa");
  CHECK(answer.stopped());
}

TEST_CASE("answer text: what was held back comes at the end, whole characters only") {
  AnswerText answer({"STOP"});
  CHECK(answer.push("ab\xc3") == "ab");
  CHECK(answer.push("\xa9ST") == "é");
  CHECK(answer.push("\xe2\x82") == "ST");
  CHECK(answer.finish() == "\xef\xbf\xbd");
  CHECK_FALSE(answer.stopped());
}

TEST_CASE("answer text: an echoed prompt and its answer may share a character") {
  AnswerText answer({"a"});
  CHECK(answer.echo("a prompt \xc3") == "a prompt ");
  CHECK(answer.push("\xa9") == "é");
}

}  // namespace
}  // namespace tutti::serving
