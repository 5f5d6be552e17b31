--
-- PostgreSQL database dump
--


-- Dumped from database version 15.18 (Debian 15.18-0+deb12u1)
-- Dumped by pg_dump version 15.18 (Debian 15.18-0+deb12u1)

SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

SET default_tablespace = '';

SET default_table_access_method = heap;

--
-- Name: kontext_meta; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.kontext_meta (
    name character varying(40) NOT NULL,
    value text NOT NULL
);


--
-- Name: kontext_requests; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.kontext_requests (
    run_id integer NOT NULL,
    id bigint NOT NULL,
    fingerprint bytea NOT NULL,
    occurrence integer NOT NULL,
    generation integer NOT NULL,
    "position" bigint NOT NULL,
    state character varying(12) NOT NULL,
    attempts integer NOT NULL,
    doubtful integer NOT NULL,
    sunk character varying(40) NOT NULL,
    model text NOT NULL,
    images smallint NOT NULL,
    prompt text NOT NULL,
    fields text NOT NULL,
    task_id text,
    cost character varying(40),
    seconds double precision,
    result text,
    files text,
    error text,
    intended_at double precision,
    accepted_at double precision,
    completed_at double precision,
    completion bigint
);


--
-- Name: kontext_runs; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.kontext_runs (
    id integer NOT NULL,
    name character varying(1024) NOT NULL,
    generation integer NOT NULL,
    created_at double precision NOT NULL
);


--
-- Name: kontext_runs_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

CREATE SEQUENCE public.kontext_runs_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


--
-- Name: kontext_runs_id_seq; Type: SEQUENCE OWNED BY; Schema: public; Owner: -
--

ALTER SEQUENCE public.kontext_runs_id_seq OWNED BY public.kontext_runs.id;


--
-- Name: kontext_runs id; Type: DEFAULT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.kontext_runs ALTER COLUMN id SET DEFAULT nextval('public.kontext_runs_id_seq'::regclass);


--
-- Data for Name: kontext_meta; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.kontext_meta VALUES ('version', '1');


--
-- Data for Name: kontext_requests; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.kontext_requests VALUES (1, 1, '\x982899c67da07ee805ef7d27b1aa6c7ebd76b7eacefb06ca67d8d31ac9d4d878', 0, 3, 0, 'saved', 1, 0, '0', 'flux_kontext_pro', 0, 'a red fox in the snow', '{}', '42vtufu4u8pbr9u1lqum', '0.04', 0.04108618699865474, '[{"url": "http://127.0.0.1:35343/results/42vtufu4u8pbr9u1lqum/0.jpeg?expires=1795827721.485&signature=4ca83375616345f90e8e706d", "type": "image", "job_id": "job-42vtufu4u8pbr9u1lqum"}]', '[["000000-a-red-fox-in-the-snow.jpg", 1195]]', NULL, 1795827121.4474194, 1795827121.464847, 1795827121.5266056, 1);
INSERT INTO public.kontext_requests VALUES (1, 13, '\x906cdfef024ea4c6bb5bde166f58eb08cb8ea7244699509d69e87fdbc7e5d489', 0, 3, 11, 'saved', 2, 1, '0', 'flux_kontext_pro', 0, 'uncertain once, and sent again', '{}', 'gt9sjguqeht0ark6l6ac', '0.04', 0.03033205100109626, '[{"url": "http://127.0.0.1:35343/results/gt9sjguqeht0ark6l6ac/0.jpeg?expires=1795827751.048&signature=8594ffa832661c0f6bc2eb12", "type": "image", "job_id": "job-gt9sjguqeht0ark6l6ac"}]', '[["000011-uncertain-once-and-sent-again.jpg", 1360]]', NULL, 1795827151.0104067, 1795827151.0187519, 1795827151.0618021, 18);
INSERT INTO public.kontext_requests VALUES (1, 2, '\x982899c67da07ee805ef7d27b1aa6c7ebd76b7eacefb06ca67d8d31ac9d4d878', 1, 3, 1, 'saved', 1, 0, '0', 'flux_kontext_pro', 0, 'a red fox in the snow', '{}', 'efkignluqusa1ik79o0k', '0.04', 0.029945850999865797, '[{"url": "http://127.0.0.1:35343/results/efkignluqusa1ik79o0k/0.jpeg?expires=1795827721.772&signature=8e3b24fd5bec1a61629b7606", "type": "image", "job_id": "job-efkignluqusa1ik79o0k"}]', '[["000001-a-red-fox-in-the-snow.jpg", 1184]]', NULL, 1795827121.7356012, 1795827121.743188, 1795827121.7891574, 2);
INSERT INTO public.kontext_requests VALUES (1, 4, '\x3c68a7e366d8e85d1d21d9f23002a2ff83ff402905ab003cf649a5bec28a8cfc', 0, 3, 3, 'saved', 1, 0, '0', 'flux_kontext_pro', 0, 'odd characters come at the end of this rather long text: two
lines, a	tab, ''quotes'', "more" -- ; DROP TABLE kontext_requests; %s {x} :y ?', '{}', '2t61ou9a97dqfigic998', '0.04', 0.030256205000114278, '[{"url": "http://127.0.0.1:35343/results/2t61ou9a97dqfigic998/0.jpeg?expires=1795827722.380&signature=fc42b7ef23f34b2115d074e5", "type": "image", "job_id": "job-2t61ou9a97dqfigic998"}]', '[["000003-odd-characters-come-at-the-end-of-this-rather-lo.jpg", 1176]]', NULL, 1795827122.342401, 1795827122.3503706, 1795827122.394372, 4);
INSERT INTO public.kontext_requests VALUES (1, 5, '\xa7ed9f3c43796b3054612f06813b5dc5970f3b09397989ee0507f1ab4199af89', 0, 3, 4, 'saved', 1, 0, '0', 'flux_kontext_pro', 0, 'odd characters come at the end of this rather long text: 🦊‍❄ שועל αλεπού ‮ NUL � end', '{}', '9ogp90pnn13snnfqn3cb', '0.04', 0.03073297700029798, '[{"url": "http://127.0.0.1:35343/results/9ogp90pnn13snnfqn3cb/0.jpeg?expires=1795827722.676&signature=9729a0d2806d36b25eb7315a", "type": "image", "job_id": "job-9ogp90pnn13snnfqn3cb"}]', '[["000004-odd-characters-come-at-the-end-of-this-rather-lo.jpg", 1212]]', NULL, 1795827122.6387577, 1795827122.646399, 1795827122.6884356, 5);
INSERT INTO public.kontext_requests VALUES (1, 7, '\xb20c605305bdd6e958d4d65a1370d5fc1cd943624ee888ad59853371a9775775', 0, 3, 6, 'saved', 1, 0, '0', 'flux_kontext_max', 0, 'order 42', '{"metadata": {"order": "42", "f\u00fcr": "J\u00fcrgen \"J\" <j@example.org>"}}', 'dh095qplpr2hkriudrj0', '0.04', 0.033108831999925314, '[{"url": "http://127.0.0.1:35343/results/dh095qplpr2hkriudrj0/0.jpeg?expires=1795827723.284&signature=d0fd4413b1ec7d67a4172fa5", "type": "image", "job_id": "job-dh095qplpr2hkriudrj0"}]', '[["000006-order-42.jpg", 1162]]', NULL, 1795827123.2442284, 1795827123.2520735, 1795827123.298559, 7);
INSERT INTO public.kontext_requests VALUES (1, 10, '\x65d745cd169ec2759cdad9e35a8d29de2563c9f034ebac7a9d101ec9cfc74b6c', 0, 3, 8, 'failed', 2, 0, '0', 'flux_kontext_pro', 0, 'rejected twice', '{}', NULL, NULL, NULL, NULL, NULL, '{"type": "RequestRejected", "message": "the gateway returned HTTP 422: unprocessable entity (request 7ffa335dae265954)", "task_id": null, "request_id": "7ffa335dae265954", "retryable": false, "may_be_charged": false, "status": 422, "code": "UNPROCESSABLE_ENTITY"}', 1795827150.107628, NULL, 1795827150.116268, 16);
INSERT INTO public.kontext_requests VALUES (1, 8, '\xae979de2563fd6d00cffe7b151842b72f295e611a5b7ec001a93b5dbf04aac43', 0, 2, 7, 'expired', 1, 0, '0', 'flux_kontext_pro', 0, 'saved, lost and forgotten', '{}', '2mv8rridgku4b1t9a9au', '0.04', 0.03009134900094068, '[{"url": "http://127.0.0.1:35343/results/2mv8rridgku4b1t9a9au/0.jpeg?expires=1795827723.580&signature=7f1889ea1d5bc5de4195d42d", "type": "image", "job_id": "job-2mv8rridgku4b1t9a9au"}]', '[["000007-saved-lost-and-forgotten.jpg", 1216]]', '{"type": "TaskNotFound", "message": "the gateway does not know this task, or no longer keeps it (task 2mv8rridgku4b1t9a9au)", "task_id": "2mv8rridgku4b1t9a9au", "request_id": null, "retryable": false, "may_be_charged": true}', 1795827123.5428731, 1795827123.5505707, 1795827142.088333, 13);
INSERT INTO public.kontext_requests VALUES (1, 11, '\x81e9ad79c3509ba3813d6a4a280a8e485b65a55fa88b0dcde8d0cdab08f35527', 0, 3, 9, 'expired', 2, 1, '0', 'flux_kontext_pro', 0, 'forgotten twice', '{}', '9t3m4r80pc27sr1t8pk3', NULL, NULL, NULL, NULL, '{"type": "TaskNotFound", "message": "the gateway does not know this task, or no longer keeps it (task 9t3m4r80pc27sr1t8pk3)", "task_id": "9t3m4r80pc27sr1t8pk3", "request_id": null, "retryable": false, "may_be_charged": true}', 1795827150.409789, 1795827150.4180875, 1795827150.5586572, 17);
INSERT INTO public.kontext_requests VALUES (1, 3, '\x982899c67da07ee805ef7d27b1aa6c7ebd76b7eacefb06ca67d8d31ac9d4d878', 2, 3, 2, 'saved', 2, 0, '0.04', 'flux_kontext_pro', 0, 'a red fox in the snow', '{}', '0sgfiepuhj3j40d950qq', '0.04', 0.03824977099975513, '[{"url": "http://127.0.0.1:35343/results/0sgfiepuhj3j40d950qq/0.jpeg?expires=1795827748.329&signature=e629abe802495cd0464f32a2", "type": "image", "job_id": "job-0sgfiepuhj3j40d950qq"}]', '[["000002-a-red-fox-in-the-snow.jpg", 1198]]', NULL, 1795827148.2980473, 1795827148.3098097, 1795827148.3633687, 14);
INSERT INTO public.kontext_requests VALUES (1, 6, '\x381624d218c8bba8cf69776529f5bdb1cbe4b7e235fa898ed253f5fcdb6e383e', 0, 3, 5, 'saved', 1, 0, '0', 'flux_kontext_pro', 1, 'make it winter', '{"seed": 7, "aspect_ratio": "16:9", "output_format": "png", "prompt_upsampling": true, "safety_tolerance": 3, "moderation": false, "input_images": ["/srv/images/input.png"]}', '6te7q6egg9pnd5o5rkcl', '0.04', 0.031003323001641547, '[{"url": "http://127.0.0.1:35343/results/6te7q6egg9pnd5o5rkcl/0.png?expires=1795827722.984&signature=5209cfabcaa6850d42b4c5bd", "type": "image", "job_id": "job-6te7q6egg9pnd5o5rkcl"}]', '[["000005-make-it-winter.png", 2696]]', NULL, 1795827122.9430723, 1795827122.9536302, 1795827122.9987292, 6);
INSERT INTO public.kontext_requests VALUES (1, 9, '\xd376fcbe5f8fbbae077e8876a5527893d92a00449c250353ad03763559cfde9c', 0, 3, 7, 'failed', 2, 0, '0', 'flux_kontext_pro', 0, 'fails twice', '{"seed": 12345678901234567890}', 'gl1q5uv5n578om554u0h', NULL, NULL, NULL, NULL, '{"type": "TaskFailed", "message": "the task failed: generation failed [002014001] (task gl1q5uv5n578om554u0h)", "task_id": "gl1q5uv5n578om554u0h", "request_id": null, "retryable": false, "may_be_charged": true, "code": "002014001"}', 1795827149.8056657, 1795827149.8141384, 1795827149.846563, 15);
INSERT INTO public.kontext_requests VALUES (2, 4, '\x26c8ed8fff9d2addcffcaec221db920c99866743958fba03c8d38a8293ffda1a', 0, 1, 3, 'planned', 0, 0, '0', 'flux_kontext_pro', 0, 'on the wire at the kill', '{}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.kontext_requests VALUES (1, 15, '\x02b3242a5de5044d6ece65133016e3fdc288115b5117abcae114d45ccfdb7a72', 0, 1, 14, 'accepted', 1, 0, '0', 'flux_kontext_pro', 2, 'still running', '{"input_images": ["/srv/images/input.png", "/srv/images/input.png"]}', 'hia33m7jehhe156qktki', NULL, NULL, NULL, NULL, NULL, 1795827125.6563945, 1795827125.6654644, NULL, NULL);
INSERT INTO public.kontext_requests VALUES (1, 14, '\x5466444551c91f558f8023303872280ec8dcea28dfa4beb4eb0b9bcd17416f51', 0, 1, 13, 'finished', 1, 0, '0', 'flux_kontext_pro', 0, 'finished and not saved', '{}', 'gsunbqlot22k3atnb6rl', '0.04', 0.022807930999988457, '[{"url": "http://127.0.0.1:35343/results/gsunbqlot22k3atnb6rl/0.jpeg?expires=1795827725.379&signature=40711bbe68b18c70a9465792", "type": "image", "job_id": "job-gsunbqlot22k3atnb6rl"}]', '[["000013-finished-and-not-saved.jpg", 0]]', '{"type": "DownloadFailed", "message": "could not download http://127.0.0.1:35343/results/gsunbqlot22k3atnb6rl/0.jpeg: it is empty (task gsunbqlot22k3atnb6rl)", "task_id": "gsunbqlot22k3atnb6rl", "request_id": null, "retryable": true, "may_be_charged": true, "reason": "it is empty"}', 1795827125.3498755, 1795827125.3567867, NULL, NULL);
INSERT INTO public.kontext_requests VALUES (1, 16, '\x3d78a4c99c4199a3ef2980499e543c0590f059786b8fa2d927757fd74c0e578a', 0, 3, 12, 'planned', 6, 0, '0', 'flux_kontext_pro', 0, 'throttled to the end', '{}', NULL, NULL, NULL, NULL, NULL, '{"type": "RateLimited", "message": "the gateway returned HTTP 429: too many requests (request 97c2232b57ca685e)", "task_id": null, "request_id": "97c2232b57ca685e", "retryable": true, "may_be_charged": false, "status": 429, "code": "RATE_LIMIT_EXCEEDED", "retry_after": 1.0}', 1795827156.3733346, NULL, NULL, NULL);
INSERT INTO public.kontext_requests VALUES (1, 12, '\xe29e917d62866d1cf1576331a3b65ff9dfe33809b7acd8a733dfc0d93e0d78c1', 0, 3, 10, 'intent', 2, 1, '0', 'flux_kontext_pro', 0, 'uncertain twice', '{}', NULL, NULL, NULL, NULL, NULL, '{"type": "SubmissionUncertain", "message": "the gateway may have accepted this request (fingerprint e29e917d6286): no response to a create request: ServerDisconnectedError: Server disconnected; it was not resent, because a second request may be billed too", "task_id": null, "request_id": null, "retryable": false, "may_be_charged": true, "fingerprint": "e29e917d62866d1cf1576331a3b65ff9dfe33809b7acd8a733dfc0d93e0d78c1", "seen": "no response to a create request: ServerDisconnectedError: Server disconnected"}', 1795827150.7106278, NULL, NULL, NULL);
INSERT INTO public.kontext_requests VALUES (1, 17, '\x26c8ed8fff9d2addcffcaec221db920c99866743958fba03c8d38a8293ffda1a', 0, 3, 13, 'intent', 1, 0, '0', 'flux_kontext_pro', 0, 'on the wire at the kill', '{}', NULL, NULL, NULL, NULL, NULL, NULL, 1795827157.3830206, NULL, NULL, NULL);
INSERT INTO public.kontext_requests VALUES (1, 18, '\x4b69a7d2469881d6e9a2b05dca55c38e3a6d2a97c917169c4f434d9ceb55bf52', 0, 3, 14, 'planned', 0, 0, '0', 'flux_kontext_pro', 0, 'never sent', '{}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.kontext_requests VALUES (1, 19, '\x4b69a7d2469881d6e9a2b05dca55c38e3a6d2a97c917169c4f434d9ceb55bf52', 1, 3, 15, 'planned', 0, 0, '0', 'flux_kontext_pro', 0, 'never sent', '{}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.kontext_requests VALUES (2, 1, '\x982899c67da07ee805ef7d27b1aa6c7ebd76b7eacefb06ca67d8d31ac9d4d878', 0, 1, 0, 'saved', 1, 0, '0', 'flux_kontext_pro', 0, 'a red fox in the snow', '{}', 'bbmi9vn87m6dv8s9jqgb', '0.04', 0.04335676600021543, '[{"url": "http://127.0.0.1:45833/results/bbmi9vn87m6dv8s9jqgb/0.jpeg?expires=1795827760.220&signature=59fa2015e7dccd26146d56f9", "type": "image", "job_id": "job-bbmi9vn87m6dv8s9jqgb"}]', '[["000000-a-red-fox-in-the-snow.jpg", 1165]]', NULL, 1795827160.1874475, 1795827160.2003415, 1795827160.2644525, 1);
INSERT INTO public.kontext_requests VALUES (2, 2, '\x982899c67da07ee805ef7d27b1aa6c7ebd76b7eacefb06ca67d8d31ac9d4d878', 1, 1, 1, 'saved', 1, 0, '0', 'flux_kontext_pro', 0, 'a red fox in the snow', '{}', '4o0n207lhthllbd854t7', '0.04', 0.02958829199997126, '[{"url": "http://127.0.0.1:45833/results/4o0n207lhthllbd854t7/0.jpeg?expires=1795827760.514&signature=4b99c341d0681dc21827b497", "type": "image", "job_id": "job-4o0n207lhthllbd854t7"}]', '[["000001-a-red-fox-in-the-snow.jpg", 1204]]', NULL, 1795827160.4781778, 1795827160.4855955, 1795827160.527098, 2);
INSERT INTO public.kontext_requests VALUES (2, 3, '\x3c68a7e366d8e85d1d21d9f23002a2ff83ff402905ab003cf649a5bec28a8cfc', 0, 1, 2, 'accepted', 1, 0, '0', 'flux_kontext_pro', 0, 'odd characters come at the end of this rather long text: two
lines, a	tab, ''quotes'', "more" -- ; DROP TABLE kontext_requests; %s {x} :y ?', '{}', '1hiocqtnu13gprmqogua', NULL, NULL, NULL, NULL, NULL, 1795827160.783371, 1795827160.7911718, NULL, NULL);


--
-- Data for Name: kontext_runs; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.kontext_runs VALUES (1, '/srv/images/run-a', 3, 1795827121.368348);
INSERT INTO public.kontext_runs VALUES (2, '/srv/images/run-b', 1, 1795827160.1086226);


--
-- Name: kontext_runs_id_seq; Type: SEQUENCE SET; Schema: public; Owner: -
--

SELECT pg_catalog.setval('public.kontext_runs_id_seq', 2, true);


--
-- Name: kontext_meta kontext_meta_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.kontext_meta
    ADD CONSTRAINT kontext_meta_pkey PRIMARY KEY (name);


--
-- Name: kontext_requests kontext_requests_once; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.kontext_requests
    ADD CONSTRAINT kontext_requests_once UNIQUE (run_id, fingerprint, occurrence);


--
-- Name: kontext_requests kontext_requests_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.kontext_requests
    ADD CONSTRAINT kontext_requests_pkey PRIMARY KEY (run_id, id);


--
-- Name: kontext_runs kontext_runs_name_key; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.kontext_runs
    ADD CONSTRAINT kontext_runs_name_key UNIQUE (name);


--
-- Name: kontext_runs kontext_runs_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.kontext_runs
    ADD CONSTRAINT kontext_runs_pkey PRIMARY KEY (id);


--
-- Name: kontext_requests_completed; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX kontext_requests_completed ON public.kontext_requests USING btree (run_id, completion) WHERE (completion IS NOT NULL);


--
-- Name: kontext_requests kontext_requests_run_id_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.kontext_requests
    ADD CONSTRAINT kontext_requests_run_id_fkey FOREIGN KEY (run_id) REFERENCES public.kontext_runs(id);


--
-- PostgreSQL database dump complete
--


