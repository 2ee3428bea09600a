#include "protocol/spec/document.h"

#include <fmt/core.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/mark.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <sstream>

#include "protocol/spec/parse.h"

namespace tutti::spec {

namespace {

// Leaves the parser's call-backs early; caught in parse_value, never seen outside this file.
struct Refused {
  Error error;
};

// Bytes of the UTF-8 sequence that begins at `at`, or 0 if it is malformed, overlong, a surrogate
// or NUL.
std::size_t utf8_length(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t i) {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0U;
  };
  const unsigned first = byte(at);
  if (first == 0) return 0;
  if (first < 0x80) return 1;
  const std::size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4) return 0;
  std::uint32_t code = first & (0xffU >> (length + 1));
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(at + i) & 0xc0U) != 0x80U) return 0;
    code = (code << 6) | (byte(at + i) & 0x3fU);
  }
  constexpr std::uint32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
  const bool surrogate = code >= 0xd800 && code <= 0xdfff;
  return code < kSmallest[length] || surrogate || code > 0x10ffff ? 0 : length;
}

Result<> check_text(std::string_view yaml, const std::string& source) {
  if (yaml.size() > kSpecBytesMax) {
    return Error{ErrorCode::invalid_argument,
                 fmt::format("{}: is {} bytes long, more than the {} that a specification may have",
                             source, yaml.size(), kSpecBytesMax)};
  }
  Place place{&source, 1, 1};
  for (std::size_t at = 0; at < yaml.size();) {
    const std::size_t length = utf8_length(yaml, at);
    if (length == 0) return error_at(place, "is not UTF-8 text");
    if (yaml[at] == '\n') {
      ++place.line;
      place.column = 1;
    } else {
      ++place.column;
    }
    at += length;
  }
  return {};
}

// Builds the tree from the parser's events.
class TreeBuilder final : public YAML::EventHandler {
 public:
  explicit TreeBuilder(const std::string& source) : source_(source) {}

  Node take() { return std::move(root_); }

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnAnchor(const YAML::Mark& mark, const std::string& name) override {
    refuse(mark, fmt::format("anchors (&{}) are not allowed in a specification", name));
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    refuse(mark, "aliases are not allowed in a specification");
  }
  void OnNull(const YAML::Mark& mark, YAML::anchor_t) override {
    Node& node = add(mark, Node::Form::null);
    // The parser marks a value that is not there where the next word begins; a reader looks at its
    // key.
    if (!open_.empty() && open_.back()->form == Node::Form::map)
      node.place = open_.back()->keys.back().place;
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t,
                const std::string& value) override {
    check_tag(mark, tag);
    if (value.find('\0') != std::string::npos)
      refuse(mark, "text must not contain a NUL character");
    const bool is_null = tag == "?" && (value == "~" || value == "null" || value.empty());
    Node& node = add(mark, is_null ? Node::Form::null : Node::Form::scalar);
    node.quoted = tag == "!";
    node.text = value;
    close_if_key(node);
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t,
                       YAML::EmitterStyle::value) override {
    check_tag(mark, tag);
    open(add(mark, Node::Form::list), mark);
  }
  void OnSequenceEnd() override { open_.pop_back(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t,
                  YAML::EmitterStyle::value) override {
    check_tag(mark, tag);
    open(add(mark, Node::Form::map), mark);
  }
  void OnMapEnd() override { open_.pop_back(); }

 private:
  [[noreturn]] void refuse(const YAML::Mark& mark, std::string_view message) const {
    throw Refused{error_at(place_of(mark), message)};
  }

  Place place_of(const YAML::Mark& mark) const {
    return {&source_, mark.line + 1, mark.column + 1};
  }

  void check_tag(const YAML::Mark& mark, const std::string& tag) const {
    if (tag.empty() || tag == "?" || tag == "!") return;
    refuse(mark, fmt::format("tags ({}) are not allowed in a specification", tag));
  }

  // The new node's place in the tree: the root, an item of a list, or a key or value of a map. A
  // map's keys run one ahead of its values, so that equal lengths mean that a key comes next.
  Node& add(const YAML::Mark& mark, Node::Form form) {
    if (++nodes_ > kNodesMax) refuse(mark, "the specification has too many values");
    Node* node = &root_;
    if (!open_.empty()) {
      Node& parent = *open_.back();
      const bool key = parent.form == Node::Form::map && parent.keys.size() == parent.items.size();
      if (key && form != Node::Form::scalar) refuse(mark, "a key must be a word");
      node = key ? &parent.keys.emplace_back() : &parent.items.emplace_back();
    }
    node->form = form;
    node->place = place_of(mark);
    return *node;
  }

  void open(Node& node, const YAML::Mark& mark) {
    if (open_.size() >= kDepthMax) refuse(mark, "the specification is nested too deeply");
    open_.push_back(&node);
  }

  void close_if_key(const Node& node) const {
    if (open_.empty() || open_.back()->keys.empty() || &open_.back()->keys.back() != &node) return;
    const std::vector<Node>& keys = open_.back()->keys;
    // Messages name keys in one line.
    const bool shows = std::none_of(node.text.begin(), node.text.end(), [](char each) {
      return static_cast<unsigned char>(each) < 0x20 || each == 0x7f;
    });
    if (!shows) throw Refused{error_at(node.place, "a key has a line break or the like in it")};
    if (keys.size() > kKeysMax) throw Refused{error_at(node.place, "the map has too many keys")};
    for (std::size_t i = 0; i + 1 < keys.size(); ++i) {
      if (keys[i].text != node.text) continue;
      throw Refused{error_at(node.place, fmt::format("key \"{}\" is given twice, first in line {}",
                                                     node.text, keys[i].place.line))};
    }
  }

  const std::string& source_;
  Node root_;
  std::vector<Node*>
      open_;  // from the root to the innermost; a node's parent does not grow while it is open
  std::size_t nodes_ = 0;
};

// Any value, or null for an empty text.
Result<Node> parse_value(std::string_view yaml, const std::string& source) {
  if (Result<> checked = check_text(yaml, source); !checked) return checked.error();
  try {
    std::istringstream stream{std::string(yaml)};
    YAML::Parser parser(stream);
    TreeBuilder builder(source);
    parser.HandleNextDocument(builder);
    Node root = builder.take();
    if (root.place.source == nullptr) root.place = {&source, 1, 1};
    TreeBuilder second(source);
    if (parser.HandleNextDocument(second)) {
      return error_at(second.take().place, "only one document is allowed");
    }
    return root;
  } catch (const Refused& refused) {
    return refused.error;
  } catch (const YAML::Exception& exception) {
    return error_at({&source, exception.mark.line + 1, exception.mark.column + 1},
                    "not YAML: " + exception.msg);
  } catch (const std::exception& exception) {
    return error_at({&source, 1, 1}, fmt::format("not YAML: {}", exception.what()));
  }
}

}  // namespace

const Node* Node::find(std::string_view key) const {
  for (std::size_t i = 0; i < keys.size(); ++i) {
    if (keys[i].text == key) return &items[i];
  }
  return nullptr;
}

Node* Node::find(std::string_view key) { return const_cast<Node*>(std::as_const(*this).find(key)); }

Result<Node> parse_document(std::string_view yaml, const std::string& source) {
  Result<Node> root = parse_value(yaml, source);
  if (!root) return root;
  if (root->form == Node::Form::null) return error_at(root->place, "is empty");
  if (root->form != Node::Form::map) {
    return error_at(root->place, "expected keys and values, found " + describe(*root));
  }
  return root;
}

Result<> apply_override(Node& root, std::string_view assignment, const std::string& source) {
  const std::size_t equals = assignment.find('=');
  const Place place{&source, 0, 0};
  if (equals == std::string_view::npos || equals == 0) {
    return error_at(place, "expected KEY=VALUE, such as train.steps=10");
  }
  const std::string_view key_text = assignment.substr(0, equals);
  if (!check_text(key_text, source) || key_text.find('\0') != std::string_view::npos) {
    return error_at(place, "the key is not UTF-8 text");
  }
  Result<Node> value = parse_value(assignment.substr(equals + 1), source);
  if (!value) return error_at(place, "the value is not YAML: " + value.error().message);
  if (assignment.size() == equals + 1)
    value->form = Node::Form::scalar;  // `a.b=` sets an empty text

  Node* at = &root;
  std::string_view path = assignment.substr(0, equals);
  while (true) {
    const std::size_t dot = path.find('.');
    const std::string_view key = path.substr(0, dot);
    if (key.empty()) return error_at(place, "a part of the key is empty");
    if (at->form == Node::Form::list) {
      return error_at(place, "the items of a list cannot be set one by one; give the whole list");
    }
    if (at->form != Node::Form::map) *at = Node{Node::Form::map, false, "", {}, {}, place};
    Node* next = at->find(key);
    if (next == nullptr) {
      at->keys.push_back({Node::Form::scalar, false, std::string(key), {}, {}, place});
      next = &at->items.emplace_back();
      next->place = place;
    }
    at = next;
    if (dot == std::string_view::npos) break;
    path.remove_prefix(dot + 1);
  }
  *at = *std::move(value);
  at->place = place;
  return {};
}

Error error_at(const Place& place, std::string_view message, ErrorCode code) {
  if (place.line == 0) return {code, fmt::format("{}: {}", *place.source, message)};
  return {code, fmt::format("{}:{}:{}: {}", *place.source, place.line, place.column, message)};
}

std::string describe(const Node& node) {
  switch (node.form) {
    case Node::Form::null: return "nothing";
    case Node::Form::list: return "a list";
    case Node::Form::map: return "a map";
    case Node::Form::scalar: break;
  }
  constexpr std::size_t kShown = 40;
  std::string shown;
  for (const char c : std::string_view(node.text).substr(0, kShown)) {
    shown += c == '\n' || c == '\t' || c == '\r' ? ' ' : c;
  }
  // A character is not cut in the middle: continuation bytes at the cut belong to a lead byte that
  // goes too.
  if (node.text.size() > kShown) {
    while (!shown.empty() &&
           (static_cast<unsigned char>(node.text[shown.size()]) & 0xc0U) == 0x80U) {
      shown.pop_back();
    }
    shown += "...";
  }
  const std::size_t sign = node.text.find_first_not_of('-');
  const bool number = !node.quoted && sign < 2 && node.text[sign] >= '0' && node.text[sign] <= '9';
  return number ? shown : '"' + shown + '"';
}

}  // namespace tutti::spec
