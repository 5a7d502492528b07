// The HyperDreamBooth tab's behavior in the page: the same file in the WebUI and in our own window.
// No texts are made here: what is read stands in the page's HTML, where the WebUI's localization finds it.

(function () {
    "use strict";

    const KEY = "hdb_job";
    // A job was started in this page: there is nothing to reconnect to.
    let started = false;

    function root() {
        return typeof gradioApp === "function" ? gradioApp() : document;
    }

    function find(selector) {
        return root().querySelector(selector);
    }

    // Gradio listens for the event, not for the value.
    function setValue(selector, value) {
        const input = find(`${selector} textarea, ${selector} input`);
        if (!input) return false;
        const prototype = input.tagName === "TEXTAREA" ? HTMLTextAreaElement.prototype : HTMLInputElement.prototype;
        Object.getOwnPropertyDescriptor(prototype, "value").set.call(input, value);
        input.dispatchEvent(new Event("input", {bubbles: true}));
        input.dispatchEvent(new Event("change", {bubbles: true}));
        return true;
    }

    function value(selector) {
        const input = find(`${selector} textarea, ${selector} input`);
        return input ? input.value : "";
    }

    function press(selector) {
        const element = find(selector);
        const button = element && (element.tagName === "BUTTON" ? element : element.querySelector("button"));
        if (button) button.click();
    }

    // After a page refresh the server is asked for the job that was running; an empty id shows the tab's first page.
    // Newer gradio shows a button before it listens to it: we ask until the answer is in the page.
    function reconnect(tries) {
        if (tries === 0 || started || answered()) return;
        setValue("#hdb_job", localStorage.getItem(KEY) || "");
        // Gradio takes the value over before the press is handled.
        setTimeout(() => started || press("#hdb_reconnect"), 50);
        setTimeout(() => reconnect(tries - 1), 2000);
    }

    function answered() {
        const shown = find("#hdb_progress [data-job]");
        return !shown || shown.dataset.job !== "" || shown.dataset.answered === "yes";
    }

    function remember() {
        const shown = find("#hdb_progress [data-job]");
        if (!shown) return;
        const running = shown.dataset.job && !["done", "failed"].includes(shown.dataset.stage);
        if (running) localStorage.setItem(KEY, shown.dataset.job);
        else if (shown.dataset.job) localStorage.removeItem(KEY);
    }

    function sendToTxt2img() {
        const prompt = find("#txt2img_prompt textarea");
        const ours = value("#hdb_prompt");
        if (!prompt || !ours) return;
        const tag = (ours.match(/<lidb:[^>]+>/) || [""])[0];
        const there = prompt.value.trim();
        if (!tag || !there.includes(tag)) setValue("#txt2img_prompt", there ? `${there}, ${ours}` : ours);
        if (typeof switch_to_txt2img === "function") switch_to_txt2img();
    }

    function onClick(event) {
        const target = event.target;
        if (!(target instanceof Element)) return;
        const face = target.closest(".hdb_face");
        if (face) setValue("#hdb_face", face.dataset.face);
        else if (target.closest("#hdb_send")) sendToTxt2img();
        else if (target.closest("#hdb_personalize")) started = true;
    }

    function start() {
        root().addEventListener("click", onClick);
        new MutationObserver(remember).observe(find("#hdb_progress"), {childList: true, subtree: true});
        reconnect(10);
    }

    // The WebUI calls back when its page is built; elsewhere we look until the tab is there.
    function whenThere() {
        if (find("#hdb_reconnect") && find("#hdb_progress")) start();
        else setTimeout(whenThere, 100);
    }

    if (typeof onUiLoaded === "function") onUiLoaded(whenThere);
    else whenThere();
})();
