#include "jobs/tokenizers/tokenizer_json.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>
#include <limits>
#include <utility>

namespace tutti::tokenizers {
namespace {

namespace json = boost::json;

Error corrupt(std::string message) { return {ErrorCode::corrupt, std::move(message)}; }
Error unsupported(std::string message) { return {ErrorCode::unsupported, std::move(message)}; }

std::string_view view_of(const json::string& text) { return {text.data(), text.size()}; }

// The member, or a null value.
const json::value& member(const json::object& object, std::string_view key) {
  static const json::value kNull;
  const json::value* found = object.if_contains(json::string_view(key.data(), key.size()));
  return found == nullptr ? kNull : *found;
}

std::string_view text_of(const json::object& object, std::string_view key) {
  const json::string* text = member(object, key).if_string();
  return text == nullptr ? std::string_view() : view_of(*text);
}

// False if it is missing, as most are.
bool flag_of(const json::object& object, std::string_view key) {
  const bool* flag = member(object, key).if_bool();
  return flag != nullptr && *flag;
}

bool flag_unless_missing_of(const json::object& object, std::string_view key) {
  return member(object, key).is_null() || flag_of(object, key);
}

Result<TokenId> id_of(const json::value& value) {
  const std::int64_t* id = value.if_int64();
  if (id == nullptr || *id < 0 || *id > kTokenIdMax) {
    return corrupt(fmt::format("{} is not a token id", json::serialize(value)));
  }
  return static_cast<TokenId>(*id);
}

Result<> add_split(PreTokenizerSettings& settings, std::string_view expression, Gaps gaps) {
  Result<Pattern> pattern = Pattern::compile(expression);
  if (!pattern) return unsupported(pattern.error().message);
  settings.splits.push_back({std::move(*pattern), gaps});
  return {};
}

Result<> read_split(const json::object& part, PreTokenizerSettings& settings) {
  std::string expression;
  const json::value& pattern = member(part, "pattern");
  if (const json::object* form = pattern.if_object()) {
    if (const json::string* regex = member(*form, "Regex").if_string()) {
      expression = view_of(*regex);
    } else if (const json::string* text = member(*form, "String").if_string()) {
      for (const char c : view_of(*text)) {
        if (c > 0 && std::string_view("\\^$.|?*+()[]{}").find(c) != std::string_view::npos) {
          expression.push_back('\\');
        }
        expression.push_back(c);
      }
    }
  }
  if (expression.empty()) return corrupt("pre_tokenizer Split has no pattern");
  const std::string_view behavior = text_of(part, "behavior");
  // Isolated: matches and what lies between are pieces, whichever of them is "the delimiter".
  if (behavior == "Isolated") return add_split(settings, expression, Gaps::kept);
  if (behavior == "Removed" && flag_of(part, "invert")) {
    return add_split(settings, expression, Gaps::dropped);
  }
  return unsupported(fmt::format("pre_tokenizer Split with behavior \"{}\"", behavior));
}

// How far the chain of pre-tokenizers has been read.
struct PreTokenizerChain {
  PreTokenizerSettings& settings;
  bool ended = false;  // by ByteLevel
};

Result<> read_pre_tokenizer(const json::value& value, PreTokenizerChain& chain) {
  const json::object* part = value.if_object();
  if (part == nullptr) return unsupported("no pre_tokenizer; ByteLevel is needed");
  const std::string_view type = text_of(*part, "type");
  if (chain.ended) return unsupported(fmt::format("pre_tokenizer {} after ByteLevel", type));
  if (type == "Sequence") {
    const json::array* parts = member(*part, "pretokenizers").if_array();
    if (parts == nullptr) return corrupt("pre_tokenizer Sequence has no pretokenizers");
    for (const json::value& each : *parts) {
      if (Result<> read = read_pre_tokenizer(each, chain); !read) return read;
    }
    return {};
  }
  if (type == "Split") return read_split(*part, chain.settings);
  if (type == "Digits") {
    const bool single = flag_of(*part, "individual_digits");
    return add_split(chain.settings, single ? R"(\p{N})" : R"(\p{N}+)", Gaps::kept);
  }
  if (type == "ByteLevel") {
    chain.ended = true;
    PreTokenizerSettings& settings = chain.settings;
    if (flag_unless_missing_of(*part, "add_prefix_space")) {
      settings.prefix_space_after = static_cast<int>(settings.splits.size());
    }
    if (flag_unless_missing_of(*part, "use_regex"))
      return add_split(settings, kGpt2Pattern, Gaps::kept);
    return {};
  }
  return unsupported(
      fmt::format("pre_tokenizer {}; Split, Digits and ByteLevel are (byte-level BPE)", type));
}

constexpr std::array<std::pair<std::string_view, NormalForm>, 4> kNormalForms = {
    {{"NFC", NormalForm::nfc},
     {"NFD", NormalForm::nfd},
     {"NFKC", NormalForm::nfkc},
     {"NFKD", NormalForm::nfkd}}};

Result<> read_normalizer(const json::value& value, Model& model) {
  const json::object* part = value.if_object();
  if (part == nullptr) return {};
  const std::string_view type = text_of(*part, "type");
  const auto form = std::find_if(kNormalForms.begin(), kNormalForms.end(),
                                 [&](const auto& each) { return each.first == type; });
  if (form != kNormalForms.end()) {
    model.normal_forms.push_back(form->second);
    return {};
  }
  const json::array* parts = member(*part, "normalizers").if_array();
  if (type != "Sequence" || parts == nullptr) {
    return unsupported(fmt::format("normalizer {}; NFC, NFD, NFKC and NFKD are", type));
  }
  for (const json::value& each : *parts) {
    if (Result<> read = read_normalizer(each, model); !read) return read;
  }
  return {};
}

// TemplateProcessing's `single`: special tokens before and after the text.
Result<> read_template(const json::object& part, Model& model) {
  const json::array* items = member(part, "single").if_array();
  const json::object* tokens = member(part, "special_tokens").if_object();
  if (items == nullptr || tokens == nullptr) return corrupt("post_processor template is cut short");
  std::vector<TokenId>* side = &model.prefix;
  for (const json::value& item : *items) {
    const json::object* form = item.if_object();
    if (form == nullptr) return corrupt("post_processor template has an item of a wrong kind");
    if (form->if_contains("Sequence") != nullptr) {
      side = &model.suffix;
      continue;
    }
    const json::object* named = member(*form, "SpecialToken").if_object();
    const json::object* token =
        named == nullptr ? nullptr : member(*tokens, text_of(*named, "id")).if_object();
    const json::array* ids = token == nullptr ? nullptr : member(*token, "ids").if_array();
    if (ids == nullptr) return corrupt("post_processor template names an unknown special token");
    for (const json::value& each : *ids) {
      const Result<TokenId> id = id_of(each);
      if (!id) return id.error();
      side->push_back(*id);
    }
  }
  return {};
}

Result<> read_post_processor(const json::value& value, Model& model) {
  const json::object* part = value.if_object();
  if (part == nullptr) return {};
  const std::string_view type = text_of(*part, "type");
  if (type == "ByteLevel") return {};  // moves offsets only
  if (type == "TemplateProcessing") return read_template(*part, model);
  const json::array* parts = member(*part, "processors").if_array();
  if (type != "Sequence" || parts == nullptr) {
    return unsupported(fmt::format("post_processor {}; TemplateProcessing is", type));
  }
  for (const json::value& each : *parts) {
    if (Result<> read = read_post_processor(each, model); !read) return read;
  }
  return {};
}

Result<> check_decoder(const json::value& value) {
  const json::object* part = value.if_object();
  if (part == nullptr || text_of(*part, "type") == "ByteLevel") return {};
  return unsupported(fmt::format("decoder {}; ByteLevel is", text_of(*part, "type")));
}

Result<> check_model_settings(const json::object& part) {
  const std::string_view type = text_of(part, "type");
  if (!type.empty() && type != "BPE") {
    return unsupported(fmt::format("model {}; byte-level BPE is", type));
  }
  if (flag_of(part, "byte_fallback")) {
    return unsupported("model with byte_fallback (SentencePiece); byte-level BPE is");
  }
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!text_of(part, key).empty()) return unsupported(fmt::format("model with {}", key));
  }
  const json::value& dropout = member(part, "dropout");
  if (!dropout.is_null() && dropout != json::value(0.0)) return unsupported("model with dropout");
  return {};
}

Result<> read_vocabulary(const json::object& part, Model& model) {
  const json::object* vocabulary = member(part, "vocab").if_object();
  if (vocabulary == nullptr) return corrupt("model has no vocab");
  for (const auto& entry : *vocabulary) {
    const std::string_view text(entry.key().data(), entry.key().size());
    const Result<TokenId> id = id_of(entry.value());
    if (!id) return Error(id.error()).with_context(fmt::format("token \"{}\"", text));
    std::optional<std::string> bytes = from_byte_characters(text);
    Result<> added = bytes ? model.add_token(std::move(*bytes), *id)
                           : model.add_unreachable_token(std::string(text), *id);
    if (!added) return Error(added.error()).with_context(fmt::format("token \"{}\"", text));
  }
  return {};
}

Result<> read_added_tokens(const json::value& value, Model& model) {
  const json::array* tokens = value.if_array();
  if (tokens == nullptr) return {};
  for (const json::value& each : *tokens) {
    const json::object* token = each.if_object();
    if (token == nullptr) return corrupt("added_tokens has an entry of a wrong kind");
    const Result<TokenId> id = id_of(member(*token, "id"));
    if (!id) return Error(id.error()).with_context("added_tokens");
    const std::string content(text_of(*token, "content"));
    if (flag_of(*token, "single_word")) {
      return unsupported(fmt::format("added token \"{}\" with single_word", content));
    }
    Result<> added = model.add_added_token({.content = content,
                                            .id = *id,
                                            .special = flag_of(*token, "special"),
                                            .strips_left = flag_of(*token, "lstrip"),
                                            .strips_right = flag_of(*token, "rstrip")});
    if (!added) return Error(added.error()).with_context("added_tokens");
  }
  return {};
}

Result<> read_merges(const json::object& part, Model& model) {
  const json::array* merges = member(part, "merges").if_array();
  if (merges == nullptr) return corrupt("model has no merges");
  for (const json::value& each : *merges) {
    std::string_view left;
    std::string_view right;
    const json::array* pair = each.if_array();
    if (const json::string* line = each.if_string()) {
      const std::size_t space = view_of(*line).find(' ');
      left = view_of(*line).substr(0, space);
      if (space != std::string_view::npos) right = view_of(*line).substr(space + 1);
    } else if (pair != nullptr && pair->size() == 2 && (*pair)[0].is_string() &&
               (*pair)[1].is_string()) {
      left = view_of((*pair)[0].get_string());
      right = view_of((*pair)[1].get_string());
    }
    const auto left_bytes = from_byte_characters(left);
    const auto right_bytes = from_byte_characters(right);
    if (left.empty() || right.empty() || !left_bytes || !right_bytes) {
      return corrupt(fmt::format("merge {} is not a pair of byte texts: {}", model.merges().size(),
                                 json::serialize(each)));
    }
    if (Result<> added = model.add_merge(*left_bytes, *right_bytes); !added) return added;
  }
  return {};
}

std::string quoted(std::string_view text) {
  return json::serialize(json::string(text.data(), text.size()));
}

}  // namespace

Result<Model> model_from_json(std::string_view text) {
  boost::system::error_code error;
  const json::value file = json::parse(json::string_view(text.data(), text.size()), error);
  if (error) return corrupt(fmt::format("not JSON: {}", error.message()));
  const json::object* top = file.if_object();
  const json::object* part = top == nullptr ? nullptr : member(*top, "model").if_object();
  if (part == nullptr) return corrupt("it has no model");
  Model model;
  PreTokenizerChain chain{model.pre_tokenizer};
  Result<> read = check_model_settings(*part);
  if (read) read = read_normalizer(member(*top, "normalizer"), model);
  if (read) read = read_pre_tokenizer(member(*top, "pre_tokenizer"), chain);
  if (read && !chain.ended)
    read = unsupported("pre_tokenizer without ByteLevel (byte-level BPE is)");
  if (read) read = check_decoder(member(*top, "decoder"));
  if (read) read = read_vocabulary(*part, model);
  if (read) read = read_added_tokens(member(*top, "added_tokens"), model);
  if (read) read = read_post_processor(member(*top, "post_processor"), model);
  if (read) read = read_merges(*part, model);
  if (!read) return read.error();
  model.whole_pieces_first = flag_of(*part, "ignore_merges");
  model.source = text;
  model.finish();
  return model;
}

std::string model_to_json(const Model& model) {
  if (!model.source.empty()) return model.source;
  std::string out =
      "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n"
      "  \"added_tokens\": [";
  const char* separator = "\n";
  for (const AddedToken& token : model.added()) {
    out += fmt::format(
        "{}    {{\"id\": {}, \"content\": {}, \"single_word\": false, \"lstrip\": {}, "
        "\"rstrip\": {}, \"normalized\": false, \"special\": {}}}",
        separator, token.id, quoted(token.content), token.strips_left, token.strips_right,
        token.special);
    separator = ",\n";
  }
  out +=
      "\n  ],\n  \"normalizer\": null,\n"
      "  \"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false, "
      "\"trim_offsets\": true, \"use_regex\": true},\n"
      "  \"post_processor\": null,\n"
      "  \"decoder\": {\"type\": \"ByteLevel\", \"add_prefix_space\": true, "
      "\"trim_offsets\": true, \"use_regex\": true},\n"
      "  \"model\": {\n    \"type\": \"BPE\",\n    \"dropout\": null,\n    \"unk_token\": null,\n"
      "    \"continuing_subword_prefix\": null,\n    \"end_of_word_suffix\": null,\n"
      "    \"fuse_unk\": false,\n    \"byte_fallback\": false,\n    \"ignore_merges\": false,\n"
      "    \"vocab\": {";
  separator = "\n";
  for (TokenId id = 0; id < model.vocabulary(); ++id) {
    const std::string text =
        model.is_added(id) ? std::string(model.bytes(id)) : to_byte_characters(model.bytes(id));
    out += fmt::format("{}      {}: {}", separator, quoted(text), id);
    separator = ",\n";
  }
  out += "\n    },\n    \"merges\": [";
  separator = "\n";
  for (const Model::MergePair& merge : model.merges()) {
    const std::string line = to_byte_characters(model.bytes(merge.left)) + " " +
                             to_byte_characters(model.bytes(merge.right));
    out += fmt::format("{}      {}", separator, quoted(line));
    separator = ",\n";
  }
  out += "\n    ]\n  }\n}\n";
  return out;
}

}  // namespace tutti::tokenizers
